"""Bad input: one clear line a mistake, exit code 2 (1 for a full disk), and nothing lost or half-written."""
import io
import os
import pickle
import subprocess
import sys
import zipfile

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from lib_sdtrain.cli.main import main


@pytest.fixture
def config(tmp_path, tiny_checkpoint):
    """A function that writes a run's config with changes by dotted path, and the arguments that train it."""

    def make(instance, **changes):
        values = {"model": {"checkpoint": str(tiny_checkpoint)}, "data": {"resolution": 64, "concepts": [
            {"name": "sks", "instance_dir": str(instance), "instance_prompt": "a photo of sks dog"}]},
            "train": {"length": 2}}
        for path, value in changes.items():
            group, name = path.split("__")
            values.setdefault(group, {})[name] = value
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump(values))
        return ["train", "--config", str(file), "--run-dir", str(tmp_path / "run")]

    return make


def errors_of(capsys, arguments, code=2):
    assert main(arguments) == code
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if line.startswith("error: ")]


def test_a_missing_folder(capsys, config, tmp_path):
    (line,) = errors_of(capsys, config(tmp_path / "nowhere"))
    assert line.startswith(f"error: data.concepts.0.instance_dir: there is no folder {tmp_path}/nowhere")
    assert str(tmp_path.resolve()) in line.partition("exists is")[2]
    assert not (tmp_path / "run").exists()


def test_a_folder_without_pictures_says_what_is_there(capsys, config, tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "notes.docx").write_bytes(b"x")
    (line,) = errors_of(capsys, config(folder))
    assert "docs has no picture that can be read; it holds notes.docx" in line


@pytest.mark.fault("a notice with its name; the others are trained on")
def test_one_truncated_jpeg_among_good_ones_is_named_and_left_out(capsys, config, picture_folder, tmp_path):
    folder, cut = picture_folder("i", 2), io.BytesIO()
    Image.effect_noise((90, 90), 80).convert("RGB").save(cut, "JPEG")
    (folder / "cut.jpg").write_bytes(cut.getvalue()[:600])
    assert main(config(folder)) == 0
    captured = capsys.readouterr()
    assert f"note: {folder}/cut.jpg: left out: damaged" in captured.err
    assert (tmp_path / "run" / "checkpoints" / "sks.safetensors").is_file()


def test_three_unknown_settings_at_once(capsys, config, picture_folder):
    arguments = config(picture_folder("i", 1), train__lenght=3, data__colour="x", foo__bar=1)
    lines = errors_of(capsys, arguments)
    assert len(lines) == 3
    assert any("train.lenght: unknown setting; did you mean train.length?" in line for line in lines)


@pytest.mark.fault("one line a mistake, exit code 2, before anything is written")
def test_mistakes_of_every_kind_come_together(capsys, config, tmp_path):
    arguments = config(tmp_path / "nowhere", data__pad_color="bleu", train__optimizer_args={"beta": 1})
    arguments += ["--set", f"model.checkpoint={tmp_path}/none.safetensors"]
    text = "\n".join(errors_of(capsys, arguments))
    for place in ("data.concepts.0.instance_dir", "data.pad_color", "train.optimizer_args.beta", "none.safetensors"):
        assert place in text


class Boom:
    """Pickles into a call that makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_malicious_checkpoint_is_refused_and_runs_nothing(capsys, config, picture_folder, tmp_path):
    marker, file = tmp_path / "ran", tmp_path / "evil.ckpt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"state_dict": Boom(str(marker))}))
        archive.writestr("archive/version", "3")
    (line,) = errors_of(capsys, [*config(picture_folder("i", 1)), "--set", f"model.checkpoint={file}"])
    assert "evil.ckpt" in line
    assert "mkdir" in line
    assert not marker.exists()


def test_a_lora_is_not_a_checkpoint(capsys, config, picture_folder, tmp_path):
    file = tmp_path / "style.safetensors"
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    save_file({f"{name}.lora_down.weight": torch.zeros(4, 8), f"{name}.lora_up.weight": torch.zeros(8, 4)}, file)
    (line,) = errors_of(capsys, [*config(picture_folder("i", 1)), "--set", f"model.checkpoint={file}"])
    assert "style.safetensors" in line
    assert "LoRA" in line


@pytest.mark.skipif(os.geteuid() != 0 or not sys.platform.startswith("linux"), reason="mounting needs root on Linux")
@pytest.mark.fault("one line with the bytes needed and free; nothing was begun")
def test_a_full_disk_is_seen_before_the_start(capsys, config, picture_folder, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", small]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting is not possible here: {mounted.stderr.decode().strip()}")
    try:
        arguments = [*config(picture_folder("i", 1)), "--set", f"save.dir={small}", "--set", "train.length=1"]
        (small / "filler").write_bytes(b"x" * 15_000_000)
        (line,) = errors_of(capsys, arguments)
        assert "not enough disk space" in line
        assert not (tmp_path / "run").exists()
        assert [path.name for path in small.iterdir()] == ["filler"]
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.parametrize(("arguments", "said"), [
    (["trian"], "error: trian: no such command"),
    (["train"], "nothing to train is given"),
    (["train", "--frobnicate"], "--frobnicate"),
    (["train", "--preset", "toybox-dreamboth"], "did you mean toybox-dreambooth"),
    (["train", "--config", "no/such.yaml"], "no/such.yaml: no such file"),
    (["train", "--resume", "no/such"], "no run directory"),
    (["train", "--preset", "toybox-dreambooth", "--set", "train.length"], "is not KEY=VALUE"),
])
def test_wrong_commands_say_what_to_do(capsys, arguments, said):
    try:
        code = main(arguments)
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    assert said in capsys.readouterr().err


LONG = "n" * 300
NAMING = {
    "checkpoint": ["train", "--preset", "toybox-dreambooth", "--set", "model.checkpoint={long}"],
    "pictures": ["train", "--preset", "toybox-dreambooth", "--set", "data.concepts.0.instance_dir={long}"],
    "class": ["train", "--preset", "toybox-dreambooth", "--set", "data.concepts.0.class_dir={long}"],
    "metadata": ["train", "--preset", "toybox-dreambooth", "--set", "data.concepts.0.metadata_file={long}.csv"],
    "settings": ["train", "--config", "{long}"],
    "preset": ["train", "--preset", "{long}"],
    "embeddings": ["train", "--preset", "toybox-dreambooth", "--set", "model.embeddings_dir={long}"],
    "results": ["train", "--preset", "toybox-dreambooth", "--set", "save.dir={there}/{long}"],
    "results in a file": ["train", "--preset", "toybox-dreambooth", "--set", "save.dir={there}/file/below"],
    "word": ["train", "--preset", "toybox-dreambooth", "--set", "embedding.name={long}", "--set",
             "data.concepts.0.instance_prompt={long}"],
    "run": ["train", "--preset", "toybox-dreambooth", "--run-dir", "{there}/{long}"],
    "resume": ["train", "--resume", "{long}"],
    "parent": ["merge", "--a", "{long}", "--b", "toybox", "--out", "{there}/o.safetensors"],
    "merged": ["merge", "--a", "toybox", "--b", "toybox", "--out", "{there}/{long}.safetensors"],
    "merged in a file": ["merge", "--a", "toybox", "--b", "toybox", "--out", "{there}/file/o.safetensors"],
    "recipe": ["merge", "--recipe", "{long}"],
    "inspected": ["inspect", "{long}"],
    "drawn with": ["sample", "--checkpoint", "{long}", "--prompt", "x", "--out", "{there}/o"],
    "extracted": ["lora-extract", "{long}", "toybox", "--out", "{there}/o.safetensors"],
    "captions": ["captions", "{long}"],
    "compared": ["diff", "{long}", "toybox"],
    "converted": ["convert", "{long}", "--out", "{there}/o.safetensors"],
    "test data": ["test-data", "{there}/{long}"],
}


@pytest.mark.parametrize("what", NAMING)
def test_a_name_that_no_disk_takes_is_a_mistake_like_any_other(capsys, tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    arguments = [part.format(long=LONG, there=tmp_path) for part in NAMING[what]]
    (line,) = errors_of(capsys, arguments)
    assert "Errno" not in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
