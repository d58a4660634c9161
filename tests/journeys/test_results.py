"""What a run has left, told on the page at its end."""
from __future__ import annotations

from pathlib import Path

import pytest

from tests.journeys.steps import press, set_text, wait_plan, wait_state

pytestmark = pytest.mark.browser


def test_all_forms_of_the_model_are_told_at_the_end(site, open_page):
    page = open_page(site.url)
    wait_plan(page)
    page.click("#sdtrain_train_more .label-wrap")
    set_text(page, "save.also", '{"suffix": "_ema", "dtype": "fp32"}\n{"suffix": "_no_vae", "vae": false}')
    wait_plan(page)
    press(page, "start")
    wait_state(page, "finished")
    told = page.locator('#sdtrain_run [data-part="result"] .sdtrain-result')
    assert [line.partition(": ")[0] for line in told.all_inner_texts()] == ["The model", "Beside it", "Beside it"]
    names = [Path(file).name for file in told.locator("code").all_inner_texts()]
    assert names == ["sks-cup.safetensors", "sks-cup_ema.safetensors", "sks-cup_no_vae.safetensors"]
    page.reload()
    wait_state(page, "finished")
    assert told.count() == 3
