"""Several forms of one training: all are written at every save, each as a run that writes only it would."""
from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from lib_sdtrain import train
from lib_sdtrain.cli.main import main
from lib_sdtrain.errors import JobFailed, UserError
from lib_sdtrain.events import CancelToken, Notice, Saved, Stopped
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.model.space import DiskFullError
from lib_sdtrain.settings.layers import to_plain
from lib_sdtrain.train import outputs, room
from lib_sdtrain.train.forecast import checkpoint_bytes
from lib_sdtrain.train.memory.fit import REMEDIES
from lib_sdtrain.train.results import CHECKPOINT
from lib_sdtrain.train.resume import resume
from tests.train.runs import finish, of_kind, run_settings
from tests.train.test_presets import planned

BPMODEL = [{"suffix": "_ema", "dtype": "fp32", "ema": "keep"}, {"suffix": "_no_vae", "vae": False}]
MAIN = {"dtype": "fp16", "ema": "drop"}
ALONE = {"": MAIN, "_ema": {"dtype": "fp32", "ema": "keep"}, "_no_vae": {**MAIN, "vae": False}}


@pytest.fixture
def of(tiny_checkpoint, picture_folder):
    """Settings with the average on, writing as the keywords have it."""
    folder = picture_folder("i", 2)

    def made(save=MAIN, **changes):
        own = {"save__name": "m", **{f"save__{name}": value for name, value in save.items()}}
        return run_settings(tiny_checkpoint, folder, **{"train__length": 2, "ema__decay": 0.8, **own, **changes})

    return made


def saved_names(seen, kind="checkpoint"):
    return [Path(event.file).name for event in of_kind(seen, Saved) if event.kind == kind]


def test_each_form_is_what_a_run_of_its_own_writes(of, tmp_path):
    seen = finish(train(of(save__also=BPMODEL, save__every=1), run_dir=tmp_path / "run"))
    assert saved_names(seen) == [
        "m_ema-000001.safetensors", "m_no_vae-000001.safetensors", "m-000001.safetensors",
        "m_ema.safetensors", "m_no_vae.safetensors", "m.safetensors",
    ]  # fmt: skip
    folder = tmp_path / "run" / "checkpoints"
    for suffix, save in ALONE.items():
        alone = finish(train(of(save, save__every=1), run_dir=tmp_path / f"alone{suffix}"))[-1].result
        assert Path(alone["checkpoint"]).read_bytes() == (folder / f"m{suffix}.safetensors").read_bytes()
        on_the_way = Path(alone["checkpoint"]).with_name("m-000001.safetensors")
        assert on_the_way.read_bytes() == (folder / f"m{suffix}-000001.safetensors").read_bytes()
    result, last = seen[-1].result, {Path(event.file).name: event for event in of_kind(seen, Saved)}
    assert (Path(result["checkpoint"]).name, result["sha256"]) == ("m.safetensors", last["m.safetensors"].sha256)
    assert result["also"] == [
        {"file": last[name].file, "sha256": last[name].sha256} for name in ("m_ema.safetensors", "m_no_vae.safetensors")
    ]
    assert not any("model_ema" in key for key in load_file(folder / "m.safetensors"))


def test_the_form_with_the_average_is_trained_on_from(of, tmp_path):
    first = finish(train(of(save__also=BPMODEL), run_dir=tmp_path / "one"))[-1].result
    source = first["also"][0]["file"]
    assert open_checkpoint(source).parts["ema"]
    seen = finish(train(of({"ema": "keep"}, model__checkpoint=source), run_dir=tmp_path / "two"))
    assert int(load_file(seen[-1].result["checkpoint"])["model_ema.num_updates"]) == 4
    assert any("this run's average goes on" in notice.text for notice in of_kind(seen, Notice))


def test_the_average_itself_can_be_a_form(of, tmp_path):
    seen = finish(train(of(save__also=[{"suffix": "-averaged", "ema": "use"}]), run_dir=tmp_path / "run"))[-1].result
    alone = finish(train(of({**MAIN, "ema": "use"}), run_dir=tmp_path / "alone"))[-1].result
    assert [form["sha256"] for form in seen["also"]] == [alone["sha256"]]
    assert seen["sha256"] != alone["sha256"]


def test_room_is_counted_for_every_form(of, tmp_path):
    (plan,) = planned(of(save__also=BPMODEL, save__every=1), tmp_path)
    finish(train(of(save__also=BPMODEL, save__every=1), run_dir=tmp_path / "run"))
    files = (tmp_path / "run" / "checkpoints").glob("*.safetensors")
    assert checkpoint_bytes(plan) == sum(value.nbytes for file in files for value in load_file(file).values())


def test_a_stopped_run_goes_on_and_writes_all(of, tmp_path):
    whole = finish(train(of(save__also=BPMODEL), run_dir=tmp_path / "whole"))[-1].result
    token = CancelToken()
    seen = finish(train(of(save__also=BPMODEL), token, tmp_path / "cut"), token, stop_at=1)
    assert isinstance(seen[-1], Stopped)
    assert [Path(form["file"]).name for form in seen[-1].result["also"]] == [
        "m_ema-000001.safetensors", "m_no_vae-000001.safetensors"]  # fmt: skip
    result = finish(resume(tmp_path / "cut"))[-1].result
    assert [form["sha256"] for form in result["also"]] == [form["sha256"] for form in whole["also"]]
    assert result["sha256"] == whole["sha256"]


def test_a_lengthened_run_keeps_all_earlier_forms(of, tmp_path):
    first = finish(train(of(save__also=BPMODEL), run_dir=tmp_path / "run"))[-1].result
    earlier = {"m-000002.safetensors": first["sha256"], "m_ema-000002.safetensors": first["also"][0]["sha256"],
               "m_no_vae-000002.safetensors": first["also"][1]["sha256"]}  # fmt: skip
    finish(resume(tmp_path / "run", {"train.length": 3}))
    from lib_sdtrain.model.hashes import sha256

    folder = tmp_path / "run" / "checkpoints"
    assert {name: sha256(folder / name) for name in earlier} == earlier
    assert len(list(folder.glob("*.safetensors"))) == 6


@pytest.mark.fault("a notice with the bytes needed; all forms are written when there is room")
def test_a_disk_that_fills_between_two_forms_is_waited_for(of, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "POLL_SECONDS", 0.01)
    write, calls = outputs.WRITERS[CHECKPOINT], []

    def on_a_full_disk(*given):
        calls.append(given[2].name)
        if len(calls) == 2:
            raise DiskFullError(28, "no room")
        return write(*given)

    monkeypatch.setitem(outputs.WRITERS, CHECKPOINT, on_a_full_disk)
    seen = finish(train(of(save__also=BPMODEL), run_dir=tmp_path / "run"))
    assert calls == ["m_ema.safetensors", "m_no_vae.safetensors", "m_no_vae.safetensors", "m.safetensors"]
    assert any("the disk is full" in notice.text for notice in of_kind(seen, Notice))
    assert saved_names(seen) == ["m_ema.safetensors", "m_no_vae.safetensors", "m.safetensors"]


def test_each_stage_writes_its_forms(of, tmp_path):
    stages = [{"train.length": 1, "save.also": [{"suffix": "_fp32", "dtype": "fp32"}]}]
    out = tmp_path / "out"
    seen = finish(train(of(save__also=BPMODEL, stages=stages, save__dir=str(out)), run_dir=tmp_path / "run"))
    assert saved_names(seen) == [
        "m-stage-1_ema.safetensors", "m-stage-1_no_vae.safetensors", "m-stage-1.safetensors",
        "m_fp32.safetensors", "m.safetensors",
    ]  # fmt: skip
    assert [Path(form["file"]).name for form in seen[-1].result["also"]] == ["m_fp32.safetensors"]


def test_a_form_that_is_there_is_not_overwritten(of, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "m_ema-000001.safetensors").touch()
    with pytest.raises(UserError, match=r"save\.name: m_ema-000001.safetensors is already there"):
        finish(train(of(save__also=BPMODEL, save__dir=str(tmp_path / "out")), run_dir=tmp_path / "run"))


def test_no_file_of_a_run_takes_anothers_name(of, tmp_path):
    settings = of(save__also=BPMODEL, save__dir=str(tmp_path), save__embedding_dir=str(tmp_path),
                  embedding__name="m_ema", embedding__init_words="dog")  # fmt: skip
    with pytest.raises(UserError, match=r"save\.name: two files of the run are called m_ema\.safetensors"):
        finish(train(settings, run_dir=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_what_a_forms_format_cannot_hold_is_told_of_the_form(of, tmp_path, monkeypatch):
    def beyond(plan, *given):
        raise JobFailed("out.weight holds values that float16 cannot hold", where="save.dtype", fix="")

    monkeypatch.setitem(outputs.WRITERS, CHECKPOINT, beyond)
    settings = of({"dtype": "fp32"}, save__also=[{"suffix": "_half", "dtype": "fp16"}])
    with pytest.raises(JobFailed, match=r"save\.also\.0\.dtype: out\.weight .*where the form has another"):
        finish(train(settings, run_dir=tmp_path / "run"))


@pytest.mark.parametrize(("entry", "where", "what"), [
    ({"suffix": "_a", "dtpye": "fp32"}, "save.also.0.dtpye", "no such setting"),
    ({"suffix": "_a", "dtype": "fp12"}, "save.also.0.dtype", "'fp12' is not one of"),
    ({"suffix": "_a", "vae": "perhaps"}, "save.also.0.vae", "neither true nor false"),
    ({"suffix": "_a", "ema": None}, "save.also.0.ema", "a value is needed"),
    ({"dtype": "fp32"}, "save.also.0.suffix", "is not said"),
    ({"suffix": "", "dtype": "fp32"}, "save.also.0.suffix", "is not said"),
    ({"suffix": 5, "dtype": "fp32"}, "save.also.0.suffix", "cannot stand behind"),
    ({"suffix": "/../x", "dtype": "fp32"}, "save.also.0.suffix", "cannot stand behind"),
    ({"suffix": "_a b", "dtype": "fp32"}, "save.also.0.suffix", "cannot stand behind"),
    ({"suffix": "_a.", "dtype": "fp32"}, "save.also.0.suffix", "cannot stand behind"),
    ({"suffix": "_" * 33, "dtype": "fp32"}, "save.also.0.suffix", "cannot stand behind"),
    ({"suffix": "_a\n", "dtype": "fp32"}, "save.also.0.suffix", "cannot stand behind"),
    ({"suffix": "-000002", "dtype": "fp32"}, "save.also.0.suffix", "number of a stage or a step"),
    ({"suffix": "-stage-1", "dtype": "fp32"}, "save.also.0.suffix", "number of a stage or a step"),
    ({"suffix": "_a"}, "save.also.0", "the same as the main form"),
    ({"suffix": "_a", "vae": True, "dtype": "fp16"}, "save.also.0", "the same as the main form"),
    ("_a", "save.also.0", "not a mapping"),
])  # fmt: skip
def test_a_mistake_in_a_form_is_told_once_and_nothing_is_written(of, tmp_path, entry, where, what):
    assert_told(of(save__also=[entry]), tmp_path, where, what)


@pytest.mark.parametrize(("changes", "where", "what"), [
    ({"save__also": [BPMODEL[0], {"suffix": "_EMA", "vae": False}]}, "save.also.1.suffix", "another form too"),
    ({"save__also": [BPMODEL[1], {"suffix": "_two", "vae": False}]}, "save.also.1", "the same as _no_vae"),
    ({"save__also": BPMODEL, "ema__decay": None}, "save.also.0.ema", "no average to keep"),
    ({"save__also": BPMODEL, "method__train_unet": False}, "save.also.0.ema", "average of a whole UNet"),
    ({"save__also": BPMODEL, "method__kind": "lora"}, "save.also", "only a whole model"),
    ({"stages": [{"save.also": [{"suffix": "_a", "dtype": 3}]}]}, "stages.0.save.also.0.dtype", "'3' is not one of"),
])
def test_mistakes_between_forms_and_settings(of, tmp_path, changes, where, what):
    assert_told(of(**changes), tmp_path, where, what)


def assert_told(settings, tmp_path, where, what):
    with pytest.raises(UserError) as caught:
        finish(train(settings, outputs=tmp_path / "out"))
    assert [problem.where for problem in caught.value.problems] == [where]
    assert what in caught.value.problems[0].what
    assert not (tmp_path / "out").exists()


def test_the_command_says_all_mistakes_and_writes_nothing(of, tmp_path, capsys):
    entries = [{"suffix": "_a", "dtype": "fp12"}, {"suffix": "_b", "ema": "keep"}]
    plain = to_plain(of(save__also=entries, ema__decay=None))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(plain))
    assert main(["train", "--config", str(tmp_path / "run.yaml"), "--run-dir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "save.also.0.dtype: 'fp12' is not one of" in said
    assert "save.also.1.ema: there is no average to keep" in said
    assert not (tmp_path / "run").exists()


def test_a_lora_that_makes_it_fit_has_no_forms(of):
    lora = next(remedy for remedy in REMEDIES if "a LoRA is trained" in remedy.words)
    assert lora.changes(of(save__also=BPMODEL), "cuda")["save.also"] == []
