"""Which files and folders settings name: what a page confined to some folders may not use is found everywhere."""
from __future__ import annotations

import pytest

from lib_sdtrain.api.setting_paths import paths_of
from lib_sdtrain.settings.layers import Layer, resolve
from lib_sdtrain.settings.run import RunSettings
from tests.api.sites import PRESET, client_of, services_in


@pytest.mark.parametrize(("entry", "where"), [
    ({"data.cache_dir": "/elsewhere"}, "stages.1.data.cache_dir"),
    ({"data": {"cache_dir": "/elsewhere"}}, "stages.1.data.cache_dir"),
    ({"data.concepts": [{"name": "b", "instance_dir": "/elsewhere"}]}, "stages.1.data.concepts.0.instance_dir"),
    ({"data.concepts.0.class_dir": "/elsewhere"}, "stages.1.data.concepts.0.class_dir"),
    ({"validation.dir": "/elsewhere"}, "stages.1.validation.dir"),
])
def test_a_stages_own_are_among_them(entry, where):
    concept = {"name": "a", "instance_dir": "/pictures"}
    values = {"data.concepts": [concept], "stages": [{"train.length": 3}, entry]}
    found = dict(paths_of(resolve(RunSettings, [Layer("test", values)]).settings))
    assert found[where] == "/elsewhere"
    assert found["data.concepts.0.instance_dir"] == "/pictures"
    assert "/elsewhere" not in [value for path, value in found.items() if path != where]


@pytest.mark.parametrize("route", ["plan", "train", "fit"])
def test_a_page_of_elsewhere_may_not_reach_through_a_stage(tmp_path, route):
    client = client_of(services_in(tmp_path / "site", local=False))
    stage = {"data.cache_dir": str(tmp_path / "elsewhere")}
    answer = client.post(f"/sdtrain/v1/{route}", json={"preset": PRESET, "settings": {"stages": [stage]}})
    told = answer.json()["problems"]
    assert "stages.0.data.cache_dir" in [problem["where"] for problem in told]
