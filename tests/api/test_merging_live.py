"""Live merges: the last wish wins, only what changed is computed, and what is on is told truly."""
from __future__ import annotations

import json
import threading
from types import SimpleNamespace

import pytest
import torch

from lib_sdtrain.api.axes import BASE, PREFIX, Axes
from lib_sdtrain.api.history import History
from lib_sdtrain.api.merging import MergeService
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import Finished, Saved
from lib_sdtrain.jobs import Busy, JobRunner
from lib_sdtrain.merge.recipes_read import read_recipe
from lib_sdtrain.model.checkpoint import open_checkpoint
from tests.api.live_host import LiveFolderHost
from tests.api.merge_site import keyed_site
from tests.merge.models import UNET

KEY = UNET + "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
IN04 = 5


@pytest.fixture
def service(tmp_path, monkeypatch) -> MergeService:
    """Merging where a.safetensors is loaded; b differs from it in one tensor of IN04."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    keyed_site(tmp_path)
    host = LiveFolderHost(tmp_path)
    return MergeService(host, JobRunner(host))


def form(service: MergeService, in04: float = 0.5, **more: object) -> dict[str, object]:
    models = service.host.folder / "models"
    weights = [in04 if number == IN04 else 0.5 for number in range(26)]
    return {"a": str(models / "a.safetensors"), "b": str(models / "b.safetensors"),
            "weights_alpha": ",".join(map(str, weights)), **more}  # fmt: skip


def show(service: MergeService, **more: object) -> None:
    service.live.show(form(service, **more))
    assert service.live.wait(60)


def on_disk(service: MergeService, **more: object) -> dict[str, torch.Tensor]:
    """The same merge as a file."""
    job = service.start({**form(service, **more), "name": f"saved{len(list(service.files.folder().glob('*')))}"})
    assert job.done.wait(60)
    ends = [event for _, event in job.log.since(0) if isinstance(event, (Finished, Saved))]
    with (merged := open_checkpoint(ends[-1].result["out"])).tensors:
        return {key: merged.tensor(key).clone() for key in merged.file_keys}


def test_what_is_shown_is_what_the_file_would_hold(service):
    show(service)
    saved, loaded = on_disk(service), service.host.loaded.tensors
    assert KEY in loaded
    assert all(torch.equal(loaded[key], saved[key]) for key in loaded)
    with (own := open_checkpoint(str(service.host.folder / "models" / "a.safetensors"))).tensors:
        assert all(torch.equal(saved[key], own.tensor(key)) for key in saved if key not in loaded)


def test_a_slider_changes_its_block_only(service):
    show(service)
    show(service, in04=0.9)
    first, second = service.host.loaded.changes
    assert len(second) < len(first) / 5
    assert all("input_blocks.4." in key for key in second)
    show(service, in04=0.9)
    assert service.host.loaded.changes[-1] == []


def test_back_to_nothing_is_the_files_own(service):
    show(service)
    show(service, in04=0.0)
    with (own := open_checkpoint(str(service.host.folder / "models" / "a.safetensors"))).tensors:
        assert torch.equal(service.host.loaded.tensors[KEY], own.tensor(KEY))


def test_a_model_that_was_loaded_anew_is_merged_as_a_whole(service):
    show(service)
    service.host.revert_live()  # the WebUI has loaded the file again
    show(service, in04=0.9)
    assert len(service.host.loaded.changes[-1]) > 100


def test_another_file_under_the_same_name_is_merged_as_a_whole(service):
    show(service)
    models = service.host.folder / "models"
    (models / "b.safetensors").unlink()
    (models / "b.safetensors").write_bytes((models / "a.safetensors").read_bytes())
    show(service)
    assert len(service.host.loaded.changes[-1]) > 100


def test_hash_and_recipe_tell_the_merge(service, tmp_path):
    show(service)
    state = service.live.state()
    first = service.host.live()
    assert (state["state"], state["name"], state["hash"]) == ("on", "a (merged, not saved)", first.digest[:10])
    show(service, in04=0.9)
    second = service.host.live()
    show(service)
    assert service.host.live().digest == first.digest != second.digest
    recipe = tmp_path / "recipe.json"
    recipe.write_text(second.recipe, "utf-8")
    read = read_recipe(str(recipe))
    assert read.settings["weights_alpha"][IN04] == 0.9
    assert {name for name, _ in read.known.values()} == {"a.safetensors", "b.safetensors"}
    assert json.loads(second.recipe)["parents"]["a"] in read.known


def test_the_merge_can_be_opened_again_from_what_the_host_keeps(service):
    show(service)
    shown = dict(service.host.loaded.tensors)
    with service.host.live().opened() as tensors:
        assert set(tensors.keys()) == set(shown)
        assert torch.equal(tensors.tensor(KEY), shown[KEY])


def test_the_last_wish_wins(service):
    held, release = threading.Event(), threading.Event()
    apply = service.host.apply_live

    def slow(*given):
        held.set()
        release.wait(60)
        apply(*given)

    object.__setattr__(service.host, "apply_live", slow)
    service.live.show(form(service, in04=0.1))
    assert held.wait(60)
    for weight in (0.2, 0.3, 0.4):
        service.live.show(form(service, in04=weight))
    assert service.live.state()["state"] == "working"
    release.set()
    assert service.live.wait(60)
    assert len(service.host.loaded.merges) == 2
    assert json.loads(service.host.live().recipe)["settings"]["weights_alpha"][IN04] == 0.4


def test_mistakes_are_told_and_change_nothing(service):
    with pytest.raises(UserError, match="'a', 'b'"):
        service.live.show(form(service) | {"weights_alpha": "a,b"})
    swapped = form(service)
    swapped["a"], swapped["b"] = swapped["b"], swapped["a"]
    service.live.show(swapped)
    assert service.live.wait(60)
    assert "not the loaded" in service.live.state()["problems"][0]["what"]
    assert service.live.state()["on"] is False
    show(service)
    assert service.live.state()["problems"] == []
    service.live.revert()
    assert service.live.wait(60)
    assert (service.live.state()["on"], service.live.form) == (False, {})


def test_nothing_is_changed_during_a_job(service):
    release = threading.Event()

    def work(token):
        release.wait(60)
        yield Finished()

    job = service.runner.start("train", "a run", work)
    with pytest.raises(Busy):
        service.live.show(form(service))
    release.set()
    job.done.wait(60)


# X/Y/Z


@pytest.fixture
def axes(service) -> dict[str, object]:
    made = Axes(service, History(service.host, service.runner, service.history))
    return {"axes": made, **{axis.label.removeprefix(PREFIX): axis for axis in made.all()}}


def cell(**more: object) -> SimpleNamespace:
    return SimpleNamespace(prompt="a ball", override_settings={}, **more)


def test_two_axes_vary_the_merge_and_the_plot_ends_with_what_was_on(service, axes):
    show(service)
    before = service.host.live().digest
    outer = cell()
    block, alpha = axes["Block weight"], axes["Alpha of all blocks"]
    values = block.prepare("IN04:0-1 (+0.5), OUT03:1")
    assert values == ["IN04:0", "IN04:0.5", "IN04:1", "OUT03:1"]
    block.check(outer, values)
    inner = cell(**{BASE: getattr(outer, BASE)})
    block.apply(inner, "IN04:1", values)
    alpha.apply(inner, 0.25, [0.25])
    axes["axes"].before(inner)
    weights = json.loads(service.host.live().recipe)["settings"]["weights_alpha"]
    assert weights == [1.0 if number == IN04 else 0.25 for number in range(26)]
    axes["axes"].ended(outer)
    assert service.host.live().digest == before


def test_a_list_or_a_preset_for_all_blocks(service, axes):
    show(service)
    outer, axis = cell(), axes["Weights of all blocks"]
    axis.check(outer, ["GRAD_V", ",".join(["0.1"] * 26)])
    with pytest.raises(UserError, match="preset"):
        axis.check(outer, ["no such preset"])
    assert "GRAD_V" in axis.choices()


def test_without_a_live_merge_an_axis_says_what_to_do(axes):
    with pytest.raises(UserError, match="Live"):
        axes["Block weight"].check(cell(), ["IN04:1"])


def test_a_block_that_the_model_has_not_is_told_before_the_first_picture(service, axes):
    show(service)
    with pytest.raises(UserError, match="IN12"):
        axes["Block weight"].check(cell(), ["IN12:1"])


def test_a_cell_without_marks_leaves_the_merge_alone(service, axes):
    show(service)
    count = len(service.host.loaded.changes)
    axes["axes"].before(cell())
    axes["axes"].ended(cell())
    assert len(service.host.loaded.changes) == count


def saved_run(service: MergeService, name: str, kind: str, *steps: int) -> None:
    folder = service.host.output_dir() / "runs" / name
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text("{}", "utf-8")
    lines = [{"type": "started", "time": float(steps[0]), "total": steps[-1]}]
    for step in steps:
        file = folder / "checkpoints" / f"{name}-{step:06d}.safetensors"
        file.write_bytes(b"")
        lines.append({"type": "saved", "file": str(file), "kind": kind, "step": step, "time": float(step)})
    (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


def test_trained_steps_are_checkpoints_or_loras_of_a_run(service, axes):
    saved_run(service, "cat", "checkpoint", 100, 200)
    saved_run(service, "style", "lora", 300, 400)
    axis = axes["Trained steps"]
    assert axis.choices() == ["style: 300", "style: 400", "cat: 100", "cat: 200"]
    axis.check(cell(), ["cat: 100", "300", "end"])
    for value, prompt, override in (
        ("cat: 100", "a ball", {"sd_model_checkpoint": "cat-000100"}), ("300", "a ball <lora:style-000300:1>", {}),
        ("end", "a ball <lora:style-000400:1>", {}),
    ):  # fmt: skip
        drawn = cell()
        axis.apply(drawn, value, [value])
        assert (drawn.prompt, drawn.override_settings) == (prompt, override)
    with pytest.raises(UserError, match="350"):
        axis.check(cell(), ["350"])


def test_of_a_steps_files_the_one_that_the_run_is_about_is_drawn(service, axes):
    saved_run(service, "cat", "checkpoint", 100)
    folder = service.host.output_dir() / "runs" / "cat"
    form, log = folder / "checkpoints" / "cat_no_vae-000100.safetensors", folder / "events.jsonl"
    form.write_bytes(b"")
    line = json.dumps({"type": "saved", "file": str(form), "kind": "checkpoint", "step": 100, "time": 1.0})
    started, main = log.read_text("utf-8").splitlines()
    log.write_text(f"{started}\n{line}\n{main}\n", "utf-8")
    drawn = cell()
    axes["Trained steps"].apply(drawn, "cat: 100", ["cat: 100"])
    assert drawn.override_settings == {"sd_model_checkpoint": "cat-000100"}
