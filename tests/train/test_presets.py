"""Every preset that comes along can be planned as it stands, and runs on a scaled-down model of its family."""
from __future__ import annotations

from pathlib import Path

import pytest

from lib_sdtrain import train
from lib_sdtrain.events import CancelToken, Finished, Step, result_of
from lib_sdtrain.presets import preset_names, preset_title, read_preset
from lib_sdtrain.settings.fields import declared
from lib_sdtrain.settings.layers import Layer
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.train.forecast import forecast_stages
from lib_sdtrain.train.stages import plan_stages
from lib_sdtrain.train.starting import resolve_run
from tests.tiny import write_tiny
from tests.train.runs import finish, of_kind

README = Path(__file__).parents[2] / "README.md"
RECIPES = [name for name in preset_names() if name != "toybox-dreambooth"]
#: what a test cannot wait for; all else is as the preset has it
SMALL = {
    "data.resolution": 64, "data.bucketing": "none", "data.arb": {}, "train.length": 20, "train.batch_size": 1,
    "train.gradient_accumulation_steps": 1, "train.lr_warmup": 2, "preview.prompts": [], "preview.every": None,
    "save.every": None, "validation.pictures": 1, "validation.timesteps": 1, "validation.every": None,
}


def planned(settings, tmp_path):
    events = plan_stages(settings, tmp_path, "cpu", CancelToken())
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize("name", RECIPES)
def test_a_preset_can_be_planned_as_it_stands(name, tmp_path):
    settings = resolve_run([Layer(name, read_preset(name))], "cpu").settings
    document = result_of(forecast_stages(planned(settings, tmp_path)), print)
    assert document["steps"] > 0
    assert document["images"] > 0
    assert preset_title(name) != name


@pytest.mark.parametrize("name", RECIPES)
def test_a_preset_runs(name, tmp_path, tiny_checkpoint):
    checkpoint = write_tiny(tmp_path / "xl.safetensors", "sdxl") if "bigasp" in name else tiny_checkpoint
    small = {**SMALL, "model.checkpoint": str(checkpoint), "save.dir": str(tmp_path / "out")}
    values = read_preset(name)
    stages = values.get("stages", [])
    small |= {"stages": [{"train": {**entry["train"], "length": 5}, "data.resolution": 64} for entry in stages]}
    if "class_prompt" in values["data"]["concepts"][0]:
        small |= {"data.concepts.0.num_class_images": 1}
    settings = resolve_run([Layer(name, values), Layer("small", small)], "cpu").settings
    seen = finish(train(settings, run_dir=tmp_path / "run", outputs=tmp_path))
    assert isinstance(seen[-1], Finished)
    assert len(of_kind(seen, Step)) == 20 + 5 * len(stages)
    assert Path(seen[-1].result["checkpoint"]).is_file()


def test_the_readme_names_every_recipe_and_settings_that_there_are():
    text = README.read_text(encoding="utf-8")
    table = text.partition("<!-- recipes:begin -->")[2].partition("<!-- recipes:end -->")[0]
    assert all(f"`{name}`" in table for name in RECIPES)
    known = {item.path for item in declared(RunSettings)}
    named = {word.strip("`:,;") for word in table.replace("|", " ").split() if word.startswith("`")}
    unknown = {word for word in named if "." in word and word not in known and not word.startswith("data.concepts.N")}
    assert unknown == set()
