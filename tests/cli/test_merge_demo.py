"""The recipe of AnimeDiffusion's card on toybox: what its fine-tunes learn, and what it refuses."""
from __future__ import annotations

import numpy as np
import pytest

from lib_sdtrain.cli import merge_demo
from lib_sdtrain.cli.main import main
from lib_sdtrain.merge.presets import bundled_presets
from lib_sdtrain.toybox.scene import training_scene
from lib_sdtrain.toybox.world import render


def fineness(picture):
    """How much of a picture changes from one row to the next."""
    values = np.asarray(picture.convert("L"), dtype=float)
    return np.abs(np.diff(values, axis=0)).mean()


def test_one_style_is_fine_and_the_other_coarse():
    picture = render(training_scene(merge_demo.SEED, 2))
    drawn = {style.name: style.draw(picture) for style in merge_demo.STYLES}
    assert {image.size for image in drawn.values()} == {picture.size}
    assert fineness(drawn["dusk"]) < fineness(picture) / 1.5
    assert fineness(drawn["ink"]) > fineness(picture) * 2


def test_pictures_have_captions_that_do_not_speak_of_the_style(tmp_path, monkeypatch):
    monkeypatch.setattr(merge_demo, "PICTURES", 2)
    folder = merge_demo.write_pictures(merge_demo.STYLES[1], tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["000.png", "000.txt", "001.png", "001.txt"]
    assert "ink" not in (folder / "000.txt").read_text("utf-8")


def test_both_presets_of_the_card_are_known():
    assert set(merge_demo.PRESETS) <= set(bundled_presets())


def test_an_earlier_demo_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "dusk").mkdir()
    assert main(["merge-demo", "--out", str(tmp_path)]) == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.slow
def test_two_fine_tunes_two_presets_and_a_sheet(tmp_path, monkeypatch, capsys):
    for name, value in (("STEPS", 1), ("PICTURES", 4), ("PROMPTS", merge_demo.PROMPTS[:1])):
        monkeypatch.setattr(merge_demo, name, value)
    monkeypatch.setattr(merge_demo, "REQUEST", merge_demo.replace(merge_demo.REQUEST, steps=1))
    assert main(["merge-demo", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "contact-sheet.png").is_file()
    assert (tmp_path / "high-res_replace.safetensors").is_file()
    assert "low-res_replace.safetensors" in capsys.readouterr().out
