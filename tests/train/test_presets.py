"""Every preset that comes along can be planned as it stands, runs on a scaled-down model of its family, and is what
the README says of it.
"""
from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lib_sdtrain import train
from lib_sdtrain.data.sizes import sizing_of
from lib_sdtrain.errors import Problems
from lib_sdtrain.events import CancelToken, Finished, Preview, Saved, Step, Validation, result_of
from lib_sdtrain.presets import preset_names, preset_title, read_preset
from lib_sdtrain.settings.fields import declared
from lib_sdtrain.settings.layers import Layer, describe_changes, resolve, to_plain
from lib_sdtrain.settings.parse import flatten
from lib_sdtrain.settings.run import Concept, RunSettings
from lib_sdtrain.train.data_plan import draws_of
from lib_sdtrain.train.forecast import forecast, forecast_stages
from lib_sdtrain.train.memory.fit import GB, RESERVE
from lib_sdtrain.train.memory.need import need
from lib_sdtrain.train.plan import Plan
from lib_sdtrain.train.stages import plan_stages, stages_of
from lib_sdtrain.train.starting import resolve_run
from tests.hollow import write_hollow
from tests.tiny import write_tiny
from tests.train.runs import finish, of_kind

README = Path(__file__).parents[2] / "README.md"
RECIPES = [name for name in preset_names() if name != "toybox-dreambooth"]
DREAMBOOTH = [name for name in RECIPES if name.startswith("dreambooth-")]
#: what a test cannot wait for: pictures, batches and intervals are small; all else is as the preset has it
SMALL = {"data.resolution": 64, "train.length": 20, "save.every": 10}
SMALLER = {
    "bpmodel": {"data.arb": {"base_res": [64, 64], "max_size": [96, 64], "divisible": 8, "min_dim": 32,
                             "dim_limit": 128}},
    "bocchi": {"data.resolution": 256, "data.replace_words_from": 10,  # the smallest of EveryDream1's
               "data.filter": "name < 2", "train.batch_size": 2},
    "bigasp-v1": {"data.bucketing": "none", "train.gradient_accumulation_steps": 2, "validation.every": 10,
                  "validation.timesteps": 1, "validation.pictures": 2},  # there are no smaller buckets than SDXL's
    "animediffusion": {"data.bucket_reso_steps": 16},
    **{name: {"data.concepts.0.num_class_images": 1} for name in DREAMBOOTH if "regularisation" not in name},
}
SCALED = ("base_res", "max_size", "divisible", "min_dim", "dim_limit")
STATED = re.compile(r"`([a-z_0-9.]+): ([^`]+)`")
NAMED = re.compile(r"`([a-z_0-9N]+\.[a-z_0-9N.]+)(?=[:`])")
#: a user's own: what the pictures are, and what the result is called
OWN = {"save.name", "name", "instance_dir", "instance_prompt"}


def of_preset(name: str, device: str = "cpu", **changes: Any) -> RunSettings:
    """The settings of a preset with changes on top."""
    own = {key.replace("__", "."): value for key, value in changes.items()}
    return resolve_run([Layer(name, read_preset(name)), Layer("test", own)], device).settings


def planned(settings: RunSettings, outputs: Path, device: str = "cpu", trained: Collection[str] = ()) -> list[Plan]:
    """The plans of all stages."""
    return result_of(plan_stages(settings, outputs, device, CancelToken(), trained=trained), lambda event: None)


@pytest.mark.parametrize("name", RECIPES)
def test_a_preset_can_be_planned_as_it_stands(name, tmp_path):
    document = result_of(forecast_stages(planned(of_preset(name), tmp_path)), print)
    assert document["steps"] > 0
    assert document["images"] > 0
    assert preset_title(name) != name


def small_stage(entry: dict[str, Any]) -> dict[str, Any]:
    """A further stage of a few steps, its sizes an eighth."""
    small = {**entry, "train": {**entry.get("train", {}), "length": 5}}
    if "data" in entry:
        data = {**entry["data"], "resolution": entry["data"]["resolution"] // 8}
        arb = {key: _eighth(value) if key in SCALED else value for key, value in data["arb"].items()}
        small["data"] = {**data, "arb": arb}
    return small


def _eighth(value: int | list[int]) -> int | list[int]:
    return [one // 8 for one in value] if isinstance(value, list) else value // 8


@pytest.mark.parametrize("name", RECIPES)
def test_a_preset_runs(name, tmp_path, tiny_checkpoint):
    checkpoint = write_tiny(tmp_path / "xl.safetensors", "sdxl") if "bigasp" in name else tiny_checkpoint
    values = read_preset(name)
    small = {**SMALL, **SMALLER.get(name, {}), "model.checkpoint": str(checkpoint),
             "save.dir": str(tmp_path / "out"), "stages": [small_stage(entry) for entry in values.get("stages", [])]}
    if prompts := values.get("preview", {}).get("prompts"):
        small |= {"preview.prompts": [{"prompt": prompt, "steps": 1} for prompt in prompts], "preview.every": 20}
    settings = resolve_run([Layer(name, values), Layer("small", small)], "cpu").settings
    seen = finish(train(settings, run_dir=tmp_path / "run", outputs=tmp_path))
    further = len(settings.stages)
    assert isinstance(seen[-1], Finished)
    assert len(of_kind(seen, Step)) == 20 + 5 * further
    assert len(of_kind(seen, Preview)) == 2 * len(prompts or ())
    assert {event.step for event in of_kind(seen, Validation)} == ({0, 10, 20} if "bigasp" in name else set())
    assert len([saved for saved in of_kind(seen, Saved) if saved.kind in ("checkpoint", "lora")]) == (2 + further) * (
        1 + len(settings.save.also))
    assert Path(seen[-1].result["checkpoint"]).is_file()


@pytest.fixture(scope="module")
def full_size(tmp_path_factory):
    """SD1.5's shapes without its weights."""
    return write_hollow(tmp_path_factory.mktemp("hollow") / "sd1.safetensors", "sd1")


@pytest.mark.parametrize(("name", "gigabytes"), [
    ("dreambooth-8gb", 8), ("dreambooth-11gb", 11), ("dreambooth-24gb", 24), ("dreambooth-no-regularisation", 24),
    ("bpmodel", 24), ("bocchi", 24),
])  # fmt: skip
def test_a_preset_is_foretold_to_fit_the_card_that_it_is_for(name, gigabytes, full_size, tmp_path):
    settings = of_preset(name, "cuda", model__checkpoint=str(full_size))
    assert settings.train.mixed_precision == "fp16"
    for plan in planned(settings, tmp_path, "cuda"):
        buckets = [{"size": size, "images": 1, "encoded": 1} for size in sizing_of(plan.settings.data).scheme.sizes]
        assert need(plan, draws_of(plan), buckets)["total"] <= gigabytes * GB - RESERVE


def test_without_class_pictures_each_step_has_a_picture_by_either_name(picture_folder, tmp_path):
    folder = picture_folder("cats", 20)
    (folder / "3.txt").write_text("sks cat, sitting")
    (plan,) = planned(of_preset("dreambooth-no-regularisation", data__concepts__0__instance_dir=str(folder)), tmp_path)
    draws = draws_of(plan)
    assert {draws.class_at(index).prompt for index in range(40)} == {"a photo of a cat"}
    assert {draws.at(index).prompt for index in range(40)} == {"a photo of sks cat", "sks cat, sitting"}
    assert plan.samples_a_step == 1
    rates = forecast(plan)["learning_rates"]  # 0.18 x 20 x 1e-7, the guide's formula
    assert rates == pytest.approx({"unet": 3.6e-7, "text_encoder": 3.6e-7})


def test_bigasp_counts_its_steps_as_its_code_does():
    settings = of_preset("bigasp-v1")
    samples = settings.train.batch_size * settings.train.gradient_accumulation_steps
    assert samples == 2048
    assert settings.train.length.steps(samples, 1) == 30_000_000 // 2048 == 14_648
    assert settings.train.lr_warmup.steps(samples, 1) == 49
    assert settings.train.grad_scaler_growth.steps(samples, 1) == 500_000 // 2048 == 244


def rows_of_recipes() -> Iterator[tuple[list[str], str]]:
    """(presets, the setting column) of each row of the README's table."""
    text = README.read_text(encoding="utf-8")
    table = text.partition("<!-- recipes:begin -->")[2].partition("<!-- recipes:end -->")[0]
    names: list[str] = []
    for line in table.strip().splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        assert len(cells) == 3, line
        names = re.findall(r"`([\w-]+)`", cells[0]) or names
        yield names, cells[2]


@pytest.mark.parametrize("name", RECIPES)
def test_the_readme_tells_the_values_of_a_recipe(name):
    stages = stages_of(of_preset(name, "cuda"))
    stated = [pair for names, cell in rows_of_recipes() if name in names for pair in STATED.findall(cell)]
    assert stated
    wrong = []
    for path, value in stated:
        later = re.match(r"stages\.(\d+)\.(.+)", path)
        stage = stages[int(later[1]) + 1] if later else stages[0]
        told = Layer("README", {later[2] if later else path: yaml.safe_load(value)})
        changed = resolve(RunSettings, [Layer("preset", to_plain(stage)), told]).settings
        wrong += describe_changes(stage, changed)
    assert wrong == []


def said_by(name: str) -> Iterator[str]:
    """The path of each setting that a preset gives a value, but for a user's own."""
    values = read_preset(name)
    stages = values.pop("stages", [])
    concepts = values["data"].pop("concepts")
    yield from flatten(RunSettings, values, Problems())
    yield from (f"data.concepts.{index}.{key}" for index, concept in enumerate(concepts) for key in concept)
    for index, stage in enumerate(stages):
        yield from (f"stages.{index}.{path}" for path in flatten(RunSettings, stage, Problems()))


@pytest.mark.parametrize("name", RECIPES)
def test_the_readme_tells_all_of_a_recipe(name):
    named = {path for names, cell in rows_of_recipes() if name in names for path in NAMED.findall(cell)}
    said = {path for path in said_by(name) if not OWN & {path, path.rpartition(".")[2]}}
    assert said <= named


def test_the_readme_names_settings_that_there_are():
    concept = {f"data.concepts.N.{item.path}" for item in declared(Concept)}
    known = {item.path for item in declared(RunSettings)} | concept
    named = {path for _, cell in rows_of_recipes() for path in NAMED.findall(cell)}
    plain = {re.sub(r"concepts\.\d+", "concepts.N", re.sub(r"^stages\.\d+\.", "", path)) for path in named}
    assert plain - known == set()


@pytest.mark.parametrize("name", DREAMBOOTH)
def test_the_guide_shows_eight_pictures(name):
    assert len(of_preset(name).preview.prompts) == 8
