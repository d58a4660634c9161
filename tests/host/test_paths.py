"""Paths from a page stay inside the folders that the page may see."""
from __future__ import annotations

from pathlib import Path

import pytest

from lib_sdtrain.errors import UserError
from lib_sdtrain.host.paths import confined
from lib_sdtrain.host.standalone import StandaloneHost


def test_paths_inside_are_resolved(tmp_path: Path):
    assert confined(str(tmp_path / "a" / ".." / "b"), [tmp_path], "x") == (tmp_path / "b").resolve()


@pytest.mark.parametrize("path", ["/etc/passwd", "{root}/../other", "{root}x", "~", "{root}/link/secret", "a\0b"])
def test_paths_outside_are_refused(tmp_path: Path, path: str):
    root = tmp_path / "root"
    root.mkdir()
    outside = tmp_path / "other"
    outside.mkdir()
    (root / "link").symlink_to(outside)
    with pytest.raises(UserError):
        confined(path.replace("{root}", str(root)), [root], "data.concepts.0.instance_dir")


def test_the_machines_own_user_may_go_anywhere(tmp_path: Path):
    assert StandaloneHost(tmp_path).allowed_path("/etc", "x") == Path("/etc").resolve()


def test_a_page_that_others_reach_may_not(tmp_path: Path):
    with pytest.raises(UserError, match="outside the folders"):
        StandaloneHost(tmp_path, local=False).allowed_path("/etc", "x")


def test_vae_files_are_no_checkpoints(tmp_path: Path):
    models = tmp_path / "models"
    models.mkdir()
    for name in ("b.safetensors", "a.ckpt", "c.vae.safetensors", "notes.txt"):
        (models / name).touch()
    assert [entry.title for entry in StandaloneHost(tmp_path).checkpoints()][1:] == ["a.ckpt", "b.safetensors"]
