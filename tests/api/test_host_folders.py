"""What is put into a host's folders: toybox as the model that it is, LoRAs where LoRAs are listed."""
from __future__ import annotations

from pathlib import Path

import pytest

from lib_sdtrain.api.choice import Choice
from lib_sdtrain.api.services import Services
from lib_sdtrain.api.training import TrainingEngine
from lib_sdtrain.errors import UserError
from lib_sdtrain.host.clip_folder import adopt
from lib_sdtrain.host.standalone import TOYBOX, StandaloneHost
from lib_sdtrain.model.checkpoint import open_checkpoint
from tests.fake_engine import FakeEngine


class WithFolder(StandaloneHost):
    """A host that lists the checkpoints of a folder, as the WebUI does."""

    def checkpoint_dir(self) -> Path:
        return self.folder

    def adopt(self, checkpoint: Path) -> None:
        adopt(checkpoint, self.folder / "clip")


def test_the_copy_has_the_heads_of_toybox(tmp_path):
    services = Services(WithFolder(tmp_path), FakeEngine())
    copy = tmp_path / services.train.add_toybox()
    family, wanted = open_checkpoint(copy).family, open_checkpoint(TOYBOX.path).family
    assert family.unet == wanted.unet
    assert family.text == wanted.text
    assert (tmp_path / "clip").is_dir()


class WithLoras(WithFolder):
    """A host with folders of its own for LoRAs and embeddings."""

    def embeddings_dir(self) -> Path:
        return self.folder / "embeddings"

    def lora_dir(self) -> Path:
        return self.folder / "Lora"


def test_a_lora_goes_to_the_folder_where_the_host_lists_loras(tmp_path):
    train = Services(WithLoras(tmp_path), TrainingEngine()).train
    for kind, folder in (("full", tmp_path), ("lora", tmp_path / "Lora")):
        assert train.resolve(Choice("", {"method.kind": kind})).settings.save.dir == str(folder)
    chosen = Choice("", {"method.kind": "lora", "save.dir": "/elsewhere"})
    assert train.resolve(chosen).settings.save.dir == "/elsewhere"


def test_a_word_goes_to_the_folder_where_the_host_lists_embeddings_and_finds_them_there(tmp_path):
    train = Services(WithLoras(tmp_path), TrainingEngine()).train
    settings = train.resolve(Choice("", {"method.kind": "embedding"})).settings
    assert settings.save.embedding_dir == str(tmp_path / "embeddings")
    assert settings.model.embeddings_dir == ""  # there is none yet
    (tmp_path / "embeddings").mkdir()
    assert train.resolve(Choice("", {})).settings.model.embeddings_dir == str(tmp_path / "embeddings")


@pytest.mark.parametrize("title", [TOYBOX.title, TOYBOX.name, f"{TOYBOX.title}  (loaded)"])
def test_a_program_may_call_a_checkpoint_as_the_host_lists_it(tmp_path, title):
    train = Services(WithFolder(tmp_path), TrainingEngine()).train
    assert train.resolve(Choice("", {"model.checkpoint": title})).settings.model.checkpoint == TOYBOX.name


@pytest.mark.parametrize("there", ["cup.safetensors", "cup-000500.safetensors"])
def test_a_run_writes_over_nothing_of_an_earlier_one(tmp_path, picture_folder, there):
    train = Services(WithLoras(tmp_path), TrainingEngine()).train
    (tmp_path / there).write_bytes(b"mine")
    (tmp_path / "cup of tea.safetensors").write_bytes(b"another")
    concept = {"name": "cup", "instance_dir": str(picture_folder("i", 1)), "instance_prompt": "a cup"}
    choice = Choice("", {"data.concepts": [concept], "model.checkpoint": "toybox"})
    [problem] = train.outlook(choice).problems
    assert (problem.where, problem.what) == ("save.name", f"{there} is already there")
    with pytest.raises(UserError, match="already there"):
        train.start(choice)
    assert (tmp_path / there).read_bytes() == b"mine"
