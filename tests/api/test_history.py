"""The list of runs and merges, one in full, several compared, what is deleted and what never is, cards, and origins."""
from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lib_sdtrain.api.cards import carded
from lib_sdtrain.api.choice import Choice
from lib_sdtrain.api.history import thinned
from lib_sdtrain.api.origin import origin_of
from lib_sdtrain.api.run_log import RunLog
from lib_sdtrain.api.sources import source_of
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import Finished, Preview, Saved, Started, Step, Stopped
from lib_sdtrain.host.standalone import StandaloneHost
from tests.api.sites import PRESET, client_of, run, services_in
from tests.fake_engine import FakeEngine

OURS = {"sdtrain": json.dumps({"kind": "train", "settings": {}})}


@pytest.fixture
def services(tmp_path: Path):
    return services_in(tmp_path)


def model(path: Path, metadata: dict | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"a": torch.zeros(8)}, path, metadata=OURS if metadata is None else metadata)
    return path


def folder(services, name: str) -> Path:
    return services.host.output_dir() / "runs" / name


def test_a_run_is_listed_and_told_in_full(services):
    name = run(services, train__length=12, save__name="cup")
    row = services.history.entries()[0]
    assert (row["id"], row["kind"], row["state"], row["step"], row["total"]) == (name, "run", "finished", 12, 12)
    found = services.history.detail(name)
    assert [point[0] for point in found["points"]] == list(range(1, 13))
    assert [one["step"] for one in found["previews"]] == [0, 10]
    assert found["settings"]["train.length"] == "12"
    assert found["settings"]["data.concepts.0.instance_prompt"] == "a photo of sks cup"
    assert found["files"][0]["file"] == "cup.safetensors"
    assert "broken.png: left out: damaged" in found["notices"]
    json.dumps(found)


def test_pictures_that_somebody_deleted_are_not_offered(services):
    name = run(services, train__length=12)
    (folder(services, name) / "samples" / "step-000010-00.png").unlink()
    assert [one["step"] for one in services.history.detail(name)["previews"]] == [0]


def test_a_log_is_read_as_it_grows_and_a_cut_line_is_waited_for(tmp_path):
    file = tmp_path / "events.jsonl"
    line = [json.dumps(event.as_dict()) for event in (
        Started(job="train", total=5), Step(step=1, total=5, smoothed=0.5), Step(step=2, total=5, smoothed=0.4),
        Preview(step=2, file="x.png"))]  # fmt: skip
    file.write_text(f"{line[0]}\n{line[1]}\n{line[2][:20]}", "utf-8")
    log = RunLog(file).read()
    assert log.step == 1
    file.write_text("\n".join([*line[:3], "no json", "[1]", line[3], ""]), "utf-8")
    assert (log.read().step, log.loss, list(log.previews)) == (2, 0.4, [2])
    file.write_text(line[0] + "\n", "utf-8")
    assert (log.read().step, log.points) == (0, [])


def test_a_run_that_went_back_after_a_crash_has_one_curve(tmp_path):
    log = RunLog(tmp_path / "x")
    for event in (Started(total=9), *(Step(step=n, total=9) for n in range(1, 6)), Started(total=9, step=3),
                  *(Step(step=n, total=9) for n in range(4, 8))):  # fmt: skip
        log._take(event.as_dict())
    assert [point[0] for point in log.points] == [1, 2, 3, 4, 5, 6, 7]


def test_a_long_curve_keeps_its_ends_and_stays_short(tmp_path):
    log = RunLog(tmp_path / "x")
    for step in range(1, 20001):
        log._take(Step(step=step, total=20000, loss=1.0).as_dict())
    steps = [point[0] for point in log.points]
    assert len(steps) <= 2001
    assert steps[-1] == 20000
    assert steps == sorted(set(steps))
    assert [thinned(steps, 5)[0], thinned(steps, 5)[-1], len(thinned(steps, 5))] == [steps[0], 20000, 5]


def test_settings_that_differ_are_shown_with_their_names_and_defaults(services):
    names = [run(services, train__length=3, save__name="a"), run(services, train__length=3, train__seed=5),
             run(services, train__length=4)]  # fmt: skip
    found = services.history.compare(names)["settings"]
    assert {one["path"]: one["values"] for one in found} == {
        "train.length": ["3", "3", "4"], "train.seed": ["0", "5", "0"]}  # fmt: skip
    assert next(one["label"] for one in found if one["path"] == "train.seed") == "Seed"
    for wrong in ([], names[:1], names * 3, ["nothing", names[0]]):
        with pytest.raises(UserError):
            services.history.compare(wrong)


@pytest.mark.parametrize("name", ["..", "../../..", "/etc", "", "a/b", "merge-1", "x\0y"])
def test_only_runs_of_the_list_are_told_or_deleted(services, name):
    run(services, train__length=2)
    with pytest.raises(UserError):
        services.history.detail(name)
    with pytest.raises(UserError):
        services.removal.remove(name, "files")


def test_pictures_come_from_the_run_s_own_folder_only(services, tmp_path):
    name = run(services, train__length=2)
    (tmp_path / "secret.png").write_bytes(b"x")
    outside = Preview(step=77, file="../../../secret.png").as_dict()
    with (folder(services, name) / "events.jsonl").open("a") as log:
        log.write(json.dumps(outside) + "\n")
    assert services.history.picture(name, 0, 0).name == "step-000000-00.png"
    assert services.history.picture(name, 77, 0) is None
    client = client_of(services, programs=False)
    assert client.get(f"/sdtrain/v1/view/history/{name}/preview/0/0").headers["content-type"] == "image/png"
    assert client.get(f"/sdtrain/v1/view/history/{name}/preview/77/0").status_code == 404


def test_a_page_that_is_to_show_no_folders_shows_none(services, tmp_path):
    name = run(services, train__length=2)
    assert str(tmp_path) in json.dumps(services.history.detail(name))
    object.__setattr__(services.host, "hides_folders", True)
    assert str(tmp_path) not in json.dumps(services.history.detail(name))


# deleting


def test_deleting_a_run_leaves_its_models_and_what_others_have_put_there(services):
    name = run(services, train__length=2)
    place = folder(services, name)
    (place / "my notes.txt").write_text("mine")
    (place / "samples" / "mine.png").write_text("mine")
    removed = services.removal.remove(name, "run")
    assert sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()) == [
        "checkpoints/sks-cup.safetensors", "my notes.txt", "samples/mine.png"]  # fmt: skip
    assert "my notes.txt" in removed.left
    assert removed.bytes > 0


def test_deleting_with_the_models_takes_those_that_sd_train_wrote(services, tmp_path):
    name = run(services, train__length=2, save__dir=str(tmp_path / "models"), save__name="cup")
    target = model(tmp_path / "models" / "cup.safetensors")
    (tmp_path / "models" / "cup.yaml").write_text("model: {}")
    other = model(tmp_path / "models" / "other.safetensors")
    services.removal.remove(name, "files")
    assert not target.exists()
    assert not target.with_suffix(".yaml").exists()
    assert other.exists()
    assert not folder(services, name).exists()


def test_a_model_that_another_program_put_in_its_place_is_kept(services, tmp_path):
    name = run(services, train__length=2, save__dir=str(tmp_path / "models"), save__name="cup")
    foreign = model(tmp_path / "models" / "cup.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="not written by SD Train"):
        services.removal.remove_file(name, "cup.safetensors")
    services.removal.remove(name, "files")
    assert foreign.exists()


def test_links_are_not_followed(services, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "000500").mkdir()
    (precious / "000500" / "tensors.safetensors").write_text("precious")
    name = run(services, train__length=2)
    place = folder(services, name)
    shutil.rmtree(place / "state")
    (place / "state").symlink_to(precious)
    services.removal.remove(name, "files")
    assert (precious / "000500" / "tensors.safetensors").exists()
    (services.host.output_dir() / "runs" / "linked").symlink_to(tmp_path)
    (tmp_path / "config.yaml").write_text("")
    assert "linked" not in {row["id"] for row in services.history.entries()}


def test_only_the_state_can_go(services):
    name = run(services, train__length=2)
    place = folder(services, name)
    assert services.train.run_named(name).resumable
    services.removal.remove(name, "state")
    assert not services.train.run_named(name).resumable
    assert (place / "config.yaml").exists()


def test_a_run_that_was_stopped_before_its_first_step_can_begin(services):
    name = run(services, train__length=2)
    place = folder(services, name)
    shutil.rmtree(place / "state")
    for saved in (True, False):
        log = [Started(job="train", total=2, run_dir=str(place)), Stopped(step=0, saved=saved)]
        (place / "events.jsonl").write_text("".join(json.dumps(event.as_dict()) + "\n" for event in log))
        assert services.train.run_named(name).resumable == saved


def test_the_states_of_stages_count_and_can_go(services):
    name = run(services, train__length=2)
    place = folder(services, name)
    (place / "stage-2").mkdir()
    (place / "state").rename(place / "stage-2" / "state")
    assert services.train.run_named(name).resumable
    assert services.history.detail(name)["state_bytes"] > 0
    services.removal.remove(name, "state")
    assert not services.train.run_named(name).resumable
    assert services.history.detail(name)["state_bytes"] == 0


def test_what_runs_cannot_be_deleted(services):
    services.train.engine.pause = 0.2
    job = services.train.start(Choice(PRESET, {"train.length": 50}))
    assert services.train.engine.began.wait(20)
    name = Path(str(job.run_dir)).name
    assert services.history.entries()[0]["state"] == "running"
    for act in (lambda: services.removal.remove(name, "run"), lambda: services.removal.remove_file(name, "x")):
        with pytest.raises(UserError, match="is running"):
            act()
    services.runner.stop("now")
    assert job.done.wait(20)


def test_a_resumed_run_may_not_write_where_the_page_may_not(tmp_path):
    services = services_in(tmp_path / "home", FakeEngine(str(tmp_path / "home" / "subject")), local=False)
    from tests.api.sites import draw_subject

    draw_subject(tmp_path / "home" / "subject")
    name = run(services, train__length=2)
    with pytest.raises(UserError, match="outside the folders"):
        services.train.resume(name, {"save.dir": str(tmp_path / "elsewhere")})


# cards, and where settings come from


class Hosted(StandaloneHost):
    """A host with folders of its own, as the WebUI's."""

    def checkpoint_dir(self) -> Path:
        return self.folder / "models"

    def lora_dir(self) -> Path:
        return self.folder / "models" / "Lora"


def test_a_lora_gets_a_card_with_its_newest_preview_and_the_words_that_call_it(services, tmp_path):
    services.train.host = Hosted(tmp_path)
    run(services, train__length=20, method__kind="lora", save__name="cup")
    place = tmp_path / "models" / "Lora"
    assert (place / "cup.preview.png").read_bytes() == next(
        (services.host.output_dir() / "runs").glob("*/samples/step-000020-00.png")).read_bytes()  # fmt: skip
    card = json.loads((place / "cup.json").read_text("utf-8"))
    assert card["activation text"] == "a photo of sks cup"
    assert "toybox, 20 steps" in card["description"]


def test_a_checkpoint_gets_a_picture_and_nothing_is_overwritten(services, tmp_path):
    services.train.host = Hosted(tmp_path)
    mine = tmp_path / "models" / "cup.preview.png"
    mine.parent.mkdir(exist_ok=True)
    mine.write_bytes(b"mine")
    run(services, train__length=2, save__name="cup")
    assert mine.read_bytes() == b"mine"
    assert not (tmp_path / "models" / "cup.json").exists()


def test_every_form_of_a_result_gets_its_picture(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("{}")
    (tmp_path / "run" / "step.png").write_bytes(b"picture")
    (tmp_path / "models").mkdir()
    files = [tmp_path / "models" / f"{name}.safetensors" for name in ("cup", "cup_ema")]
    for file in files:
        file.touch()
    result = {"checkpoint": str(files[0]), "also": [{"file": str(files[1]), "sha256": "0"}]}
    events = [Started(run_dir=str(tmp_path / "run")), Preview(file="step.png"), Finished(result=result)]
    assert list(carded(iter(events), Hosted(tmp_path))) == events
    assert all(file.with_suffix(".preview.png").read_bytes() == b"picture" for file in files)


def infotext(**facts: str) -> str:
    more = "".join(f", {name.replace('_', ' ')}: {value}" for name, value in facts.items())
    return f"a cup\nSteps: 5, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64{more}"


def test_a_picture_leads_to_the_run_that_made_its_model(services):
    name = run(services, train__length=7, save__name="cup")
    found = origin_of(infotext(Model_hash="0000000000", Model="whatever"), services.history, services.merge.files)
    assert (found.kind, found.id) == ("run", name)
    source = source_of(json.dumps({"infotext": infotext(Model="cup")}), services)
    assert source.choice.changes["train.length"] == 7
    nothing = origin_of(infotext(Model="unknown"), services.history, services.merge.files)
    assert (nothing.kind, nothing.id) == ("", "")
    with pytest.raises(UserError, match="which model"):
        origin_of(infotext(), services.history, services.merge.files)


def test_settings_come_from_a_file_with_every_mistake_told(services):
    found = source_of(json.dumps({"name": "mine.yaml", "text": "train: {length: 9}\nsave: {dir: /x}"}), services)
    assert found.choice.changes == {"train.length": 9}
    with pytest.raises(UserError) as caught:
        source_of(json.dumps({"name": "mine.yaml", "text": "train: {lenght: 9, batch_size: 0}"}), services)
    assert "lenght" in str(caught.value)
    for wrong in ("{", "[]", "{}", '{"task": "x"}', '{"run": ".."}', '{"text": "- a"}'):
        with pytest.raises(UserError):
            source_of(wrong, services)


def test_a_saved_file_of_another_kind_is_told_too(tmp_path):
    log = RunLog(tmp_path / "x")
    for event in (Saved(file="a.safetensors", kind="lora", step=3, sha256="ab"), Saved(file="state", kind="state")):
        log._take(event.as_dict())
    assert list(log.saved) == ["a.safetensors"]
