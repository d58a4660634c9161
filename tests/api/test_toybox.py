"""Adding toybox to a host: what lies there afterwards is the same model."""
from __future__ import annotations

from pathlib import Path

from lib_sdtrain.api.services import Services
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
