"""Places that a user named: a name that is too long, a folder that may not be entered, a file in the way."""
from __future__ import annotations

import os
from pathlib import Path

import pytest

from lib_sdtrain.errors import UserError
from lib_sdtrain.places import check_writable, exists, is_dir, is_file


@pytest.fixture
def closed(tmp_path, monkeypatch):
    """A folder that may not be entered; root may enter any, so that the system's answer is made up."""
    folder, stat = tmp_path / "closed", os.stat
    folder.mkdir()

    def refusing(path, *args, **options):
        if isinstance(path, (str, os.PathLike)) and folder in Path(path).parents:
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *args, **options)

    monkeypatch.setattr(os, "stat", refusing)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder)
    return folder


def test_nothing_is_where_nobody_may_look(closed, tmp_path):
    for place in (closed / "below", tmp_path / ("n" * 300), tmp_path / "no"):
        assert [exists(place), is_file(place), is_dir(place)] == [False] * 3
    assert exists(closed)


def test_a_folder_that_may_not_be_entered_is_told(closed):
    with pytest.raises(UserError, match=r"nothing can be written in .*closed"):
        check_writable(closed / "below" / "further", "save.dir")


def test_a_folder_that_can_be_made_is_fine_and_not_made(tmp_path):
    check_writable(tmp_path / "new" / "newer", "save.dir")
    assert list(tmp_path.iterdir()) == []
