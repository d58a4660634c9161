"""What a page or a program can do with merging, in plain data."""
from __future__ import annotations

import json

import pytest

from lib_sdtrain.api.merging import DIFFERENCE, MERGE, PICTURES, MergeService
from lib_sdtrain.api.merging_files import MergeFiles
from lib_sdtrain.api.merging_pictures import PicturePlan
from lib_sdtrain.api.merging_presets import converted, rolled
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import Finished, Preview
from lib_sdtrain.host.standalone import StandaloneHost
from lib_sdtrain.merge.methods import all_methods
from lib_sdtrain.model.hashes import sha256
from tests.api.merge_site import drawable_site, keyed_site, service_of

WEIGHTS = ",".join(f"{0.1 + 0.03 * n:.2f}" for n in range(26))


@pytest.fixture
def service(tmp_path, monkeypatch) -> MergeService:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return keyed_site(tmp_path)


def form(**changes):
    return {"a": "a.safetensors", "b": "b.safetensors", "method": "weighted_sum", "weights_alpha": WEIGHTS, **changes}


def wait(job):
    assert job.done.wait(60)
    return job


def last(job):
    return [event for _, event in job.log.since(0)][-1]


def problems(call, *args):
    with pytest.raises(UserError) as raised:
        call(*args)
    return raised.value.problems


def test_every_method_is_told_with_an_example(service):
    found = service.methods()
    assert {method["name"] for method in found} == set(all_methods())
    for method in found:
        shown = service.example(method["name"], 0.5, method["beta"] or 0.0, {})
        assert len(shown["result"]) == 12
        assert set(shown) == {"result", *"abc"[: method["models"]]}


def test_the_example_is_the_formula(service):
    shown = service.example("weighted_sum", 0.25, 0, {})
    for a, b, result in zip(shown["a"], shown["b"], shown["result"], strict=True):
        assert result == pytest.approx(0.75 * a + 0.25 * b, abs=1e-4)


def test_a_merge_is_a_job_that_ends_in_a_file_the_host_lists(service):
    outlook = service.outlook(form())
    assert outlook.problems == ()
    assert outlook.facts["name"] == "a-b-weighted_sum.safetensors"
    assert outlook.facts["seconds"] is None
    job = wait(service.start(form()))
    assert (job.kind, job.state) == (MERGE, "finished")
    result = last(job).result
    assert result["sha256"] == sha256(result["out"])
    assert any(entry.path.name == "a-b-weighted_sum.safetensors" for entry in service.host.checkpoints())
    assert service.outlook(form()).facts["name"] == "a-b-weighted_sum-2.safetensors"
    assert service.outlook(form()).facts["bytes"] == pytest.approx(outlook.facts["bytes"])


def test_nothing_is_overwritten(service):
    wait(service.start(form(name="mine")))
    (problem,) = problems(service.start, form(name="mine"))
    assert (problem.where, problem.what) == ("name", "mine.safetensors is already there")
    (problem,) = problems(service.start, form(name="../mine"))
    assert problem.where == "name"


def test_every_mistake_is_told_at_once(service):
    found = service.outlook(form(b="nowhere.safetensors", weights_alpha="1,2,3", name="a/b")).problems
    assert {problem.where for problem in found} >= {"name", "weights_alpha"}
    assert len(found) == 3


def test_what_a_method_does_not_use_does_not_count(service):
    kept = service.relevant(form(c="xl.safetensors", weights_beta="rubbish", gamma="-1", model=["xl.safetensors"]))
    assert set(kept) == {"a", "b", "method", "weights_alpha"}
    assert "seed" in service.relevant(form(method="dare", seed=3, model=["b.safetensors"]))


def test_other_families_are_refused_beside_their_control(service):
    (problem,) = service.outlook(form(b="xl.safetensors")).problems
    assert problem.where == "b"


def test_a_page_from_outside_reaches_its_own_folder_only(tmp_path, service):
    files = MergeFiles(StandaloneHost(tmp_path, local=False))
    assert files.checkpoint("a.safetensors", "a").endswith("models/a.safetensors")
    (problem,) = problems(files.checkpoint, "/etc/passwd", "a")
    assert "outside the folders" in problem.what
    (problem,) = problems(files.many, "/etc/x.safetensors:0.5", "lora")
    assert "outside the folders" in problem.what
    lora = tmp_path / "models" / "Lora" / "style.safetensors"
    lora.parent.mkdir()
    lora.write_bytes(b"")
    (problem,) = problems(files.many, "style:0.5:/etc/hostname", "lora")
    assert "outside the folders" in problem.what
    for text in ("/etc/hostname", "/etc/hostname:NAME", "../../etc/hostname", "/etc/there-is-none"):
        (problem,) = problems(files.weights, text, "weights_alpha")
        assert "outside the folders" in problem.what
    assert [files.weights(text, "x") for text in (WEIGHTS, "GRAD_V", "0.5")] == [WEIGHTS, "GRAD_V", "0.5"]


@pytest.mark.parametrize("name", ["recipe", "search", "out", "threads"])
def test_where_a_command_looks_and_writes_is_not_a_forms_business(tmp_path, service, name):
    given = {"threads": 1, "search": [str(tmp_path)]}.get(name, str(tmp_path / "x.safetensors"))
    [problem] = service.outlook(form(**{name: given})).problems
    assert (problem.where, problem.what) == (name, "is a setting of the command alone")


def test_loras_are_found_by_name_and_preset_files_on_one_line(tmp_path, service):
    lora = tmp_path / "models" / "Lora" / "style.safetensors"
    lora.parent.mkdir()
    lora.write_bytes(b"")
    assert service.files.many("style:0.5\nstyle:1:0,1", "lora") == [f"{lora}:0.5", f"{lora}:1.0:0,1"]
    assert problems(service.files.many, "style\nother", "lora")[0].what == "'style' has no weight"
    (tmp_path / "one.txt").write_text("SOFT\t" + WEIGHTS)
    (tmp_path / "two.txt").write_text("HARD:" + WEIGHTS)
    names = service.presets.names(f"{tmp_path}/one.txt, {tmp_path}/two.txt")
    assert {"SOFT", "HARD"} <= set(names)
    assert service.presets.text("HARD", 26, f"{tmp_path}/two.txt")[0] == WEIGHTS


def test_loras_are_found_in_the_hosts_own_folder(tmp_path, service, monkeypatch):
    lora = tmp_path / "elsewhere" / "style.safetensors"
    lora.parent.mkdir()
    lora.write_bytes(b"")
    monkeypatch.setattr(type(service.host), "lora_dir", lambda self: lora.parent)
    assert service.files.many("style:0.5", "lora") == [f"{lora}:0.5"]


def test_the_history_fills_the_form_again_and_measures_the_machine(service):
    wait(service.start(form(elements="IN04:attn2:1")))
    (entry,) = service.history.entries()
    label = service.history.labels()[0]
    again, notes = service.again(label)
    assert (again["weights_alpha"], again["elements"], notes) == (WEIGHTS, "IN04:attn2:1", [])
    assert entry["bytes"] > 0
    assert service.outlook(form()).facts["seconds"] is not None
    service.history.file.write_text("not json\n" + service.history.file.read_text())
    assert len(service.history.entries()) == 1


def test_a_merged_file_fills_the_form_from_its_recipe(service):
    wait(service.start(form(arithmetic="fp16", name="mine")))
    service.history.file.unlink()
    again, notes = service.again("mine.safetensors")
    assert notes == []
    assert (again["a"], again["b"], again["arithmetic"]) == ("a.safetensors", "b.safetensors", "fp16")
    assert again["weights_alpha"].split(",")[0] == "0.1"
    job = wait(service.start({**again, "name": "again"}))
    assert last(job).result["sha256"] == sha256(service.files.folder() / "mine.safetensors")


def test_a_file_without_a_recipe_says_so(service):
    (problem,) = problems(service.again, "a.safetensors")
    assert "no merge recipe" in problem.what


def test_the_difference_is_kept_by_pair(service):
    assert service.difference("a.safetensors", "b.safetensors") is None
    job = wait(service.start_difference("a.safetensors", "b.safetensors"))
    assert (job.kind, job.state) == (DIFFERENCE, "finished")
    document = service.difference("a.safetensors", "b.safetensors")
    assert [name for name, row in document["blocks"].items() if row["distance"]] == ["IN04"]
    assert "tensors" not in document
    assert service.difference("a.safetensors", "a.safetensors") is None
    assert {p.where for p in problems(service.start_difference, "", "")} == {"a", "b"}


def test_presets_are_kept_in_the_form_of_other_mergers(service):
    assert service.presets.names()[0] == "high-res_replace"
    service.presets.save("mine", WEIGHTS)
    assert service.presets.names()[0] == "mine"
    assert service.presets.text("mine", 26) == (WEIGHTS, [])
    text, notes = service.presets.text("mine", 20)
    assert len(text.split(",")) == 20
    assert notes
    assert service.presets.file.read_text().startswith("mine\t0.10,")
    service.presets.save("mine", WEIGHTS.replace("0.10", "0.9"))
    assert service.presets.text("mine", 26)[0].startswith("0.9,")
    assert problems(service.presets.save, "GRAD_V", WEIGHTS)[0].what == "GRAD_V comes along"
    assert "block weights" in problems(service.presets.save, "short", "1,2")[0].what
    assert problems(service.presets.save, "a:b", WEIGHTS)[0].where == "preset_name"


def test_dice_are_reproducible_and_stay_where_they_are_told():
    once = rolled(WEIGHTS, range(1, 13), 7, 0.2, 0.4)
    assert once == rolled(WEIGHTS, range(1, 13), 7, 0.2, 0.4)
    assert once != rolled(WEIGHTS, range(1, 13), 8, 0.2, 0.4)
    fields = once.split(",")
    assert fields[0] == "0.10"
    assert fields[13:] == WEIGHTS.split(",")[13:]
    assert all(0.2 <= float(field) <= 0.4 for field in fields[1:13])
    letters = ["R", *WEIGHTS.split(",")[1:]]
    assert rolled(",".join(letters), range(26), 7, 0, 1).split(",")[1:] == letters[1:]


def test_weights_follow_the_model(service):
    text, notes = converted(WEIGHTS, 20)
    assert len(text.split(",")) == 20
    assert "IN09" in notes[0]
    assert service.blocks("xl.safetensors")["family"] == "sdxl"
    assert len(service.blocks("a.safetensors")["names"]) == 26


def test_pictures_are_drawn_row_by_row_from_the_same_seeds(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    drawable_site(tmp_path)
    service = service_of(tmp_path)
    plan = PicturePlan("a cat\na dog", steps=1, size=64)
    job = wait(service.start_pictures({"a": "one.safetensors", "b": "two.safetensors"}, plan))
    assert (job.kind, job.state) == (PICTURES, "finished"), last(job)
    events = [event for _, event in job.log.since(0)]
    shown = [(event.step, event.index, event.infotext) for event in events if isinstance(event, Preview)]
    assert shown == [(0, 0, "A one: a cat"), (0, 1, "A one: a dog"), (1, 0, "B two: a cat"), (1, 1, "B two: a dog")]
    assert events[-1].result["rows"] == ["A one", "B two"]
    assert isinstance(events[-1], Finished)
    json.dumps(events[-1].result)
    assert problems(service.start_pictures, {"a": "one.safetensors"}, PicturePlan(" "))[0].where == "pictures_prompts"


@pytest.mark.parametrize("wrong", [[{"b": None}], {"x": 1}])
def test_a_checkpoint_that_is_no_text_is_told(service, wrong):
    with pytest.raises(UserError) as told:
        service.settings(form(a=wrong))
    assert {problem.where for problem in told.value.problems} == {"a"}
