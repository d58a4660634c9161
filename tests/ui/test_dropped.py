"""Pictures dropped on the page: each is kept, with its own caption, under a name that is safe."""
from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lib_sdtrain.ui.train.pictures import keep_dropped


def drop(folder: Path, names: list[str]) -> list[str]:
    """Different pictures of these names, each with a caption that says its name."""
    folder.mkdir()
    for number, name in enumerate(names):
        Image.new("RGB", (4, 4), (number + 1, 0, len(folder.name))).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(name)
    return [str(path) for path in sorted(folder.iterdir())]


@pytest.mark.parametrize("names", [["cat (1)", "cat [1]"], ["(1)", "1"], ["cat!", "cat?"], ["a" * 90, "a" * 91]])
def test_names_that_come_to_the_same_overwrite_nothing(tmp_path, names):
    kept = keep_dropped(drop(tmp_path / "from", names), tmp_path / "kept")
    pictures = sorted(kept.glob("*.png"))
    assert len(pictures) == 2
    said = {path.with_suffix(".txt").read_text(): path.read_bytes() for path in pictures}
    assert said == {name: (tmp_path / "from" / f"{name}.png").read_bytes() for name in names}


def test_the_same_again_is_no_second_one_and_another_is(tmp_path):
    first = drop(tmp_path / "from", ["cat"])
    kept = keep_dropped(first, tmp_path / "kept")
    keep_dropped(first, kept)
    assert [path.name for path in kept.glob("*.png")] == ["cat.png"]
    keep_dropped(drop(tmp_path / "other one", ["cat"]), kept)
    assert sorted(path.name for path in kept.glob("*.png")) == ["cat-2.png", "cat.png"]
    (tmp_path / "from" / "cat.txt").write_text("another word")
    keep_dropped([str(tmp_path / "from" / "cat.txt")], kept)  # a caption may be written anew
    assert (kept / "cat.txt").read_text() == "another word"
