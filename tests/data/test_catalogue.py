"""Folders opened as a catalogue: what it holds, what of it is read again, and that it stays as it was."""
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_sdtrain.data import catalogue, scanning
from lib_sdtrain.data.index import PictureIndex
from lib_sdtrain.errors import Cancelled
from lib_sdtrain.events import CancelToken, Notice
from tests.data.folders import opened


@pytest.fixture
def folder(tmp_path):
    """Nine pictures in three folders, of three sizes; every third has a caption of two lines."""
    for number in range(9):
        place = tmp_path / "pictures" / "abc"[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64 + number % 3, 64), (number * 20, 0, 0)).save(place / f"{number}.png")
        if number % 3 == 0:
            (place / f"{number}.txt").write_text(f"number {number}\nin red")
    return tmp_path / "pictures"


@pytest.fixture
def read(monkeypatch):
    """Names of the picture files that were read."""
    names, facts = [], scanning.read_facts
    monkeypatch.setattr(scanning, "read_facts", lambda path: names.append(path.name) or facts(path))
    return names


def test_pictures_come_by_number_in_slices_and_in_order(folder):
    _, found = opened(folder)
    names = ["a/0.png", "a/3.png", "a/6.png", "b/1.png", "b/4.png", "b/7.png", "c/2.png", "c/5.png", "c/8.png"]
    assert list(catalogue.names_of(found, folder)) == names
    assert [picture.path for picture in found] == [folder / name for name in names]
    assert found[1].caption == "number 3 in red"
    assert [picture.path.name for picture in found[3:5]] == ["1.png", "4.png"]
    assert found[-1] == found[8]
    assert found.size_at(3) == (65, 64) == found[3].size
    with pytest.raises(IndexError):
        found[9]
    some = catalogue.chosen(found, np.array([2, 5]))
    assert [picture.path.name for picture in some] == ["6.png", "7.png"]
    assert some.sizes().tolist() == [[64, 64], [65, 64]]
    assert [sha for sha, _ in catalogue.looks_of(some)] == [found[2].sha256, found[5].sha256]
    assert (catalogue.uncaptioned(found), catalogue.uncaptioned(some)) == (6, 1)
    worded = catalogue.with_words(found, {"a ball": [2, 3]})
    assert [worded[2].caption, worded[3].caption, worded[4].caption] == ["number 6 in red", "a ball", None]
    plain = tuple(found)
    assert catalogue.sizes_of(plain).tolist() == catalogue.sizes_of(found).tolist()
    assert [p.caption for p in catalogue.with_words(plain, {"a ball": [2, 3]})] == [p.caption for p in worded]
    assert list(catalogue.looks_of(plain)) == list(catalogue.looks_of(found))


def test_a_changed_caption_is_read_without_the_picture(folder, tmp_path, read):
    index = PictureIndex(tmp_path / "index.sqlite")
    opened(folder, index=index)
    read.clear()
    (folder / "a" / "0.txt").write_text("another")
    (folder / "a" / "3.txt").unlink()
    (folder / "b" / "1.caption").write_text("by another suffix")
    _, found = opened(folder, index=index)
    assert read == []
    assert [found[place].caption for place in (0, 1, 3)] == ["another", None, "by another suffix"]


def test_a_catalogue_stays_as_it_was(folder, tmp_path):
    index = PictureIndex(tmp_path / "index.sqlite")
    _, before = opened(folder, index=index)
    (folder / "a" / "0.txt").write_text("another")
    (folder / "a" / "3.png").unlink()
    _, after = opened(folder, index=index)
    assert before[0].caption == "number 0 in red"
    assert (len(before), len(after), after[0].caption) == (9, 8, "another")


def test_a_limit_counts_good_pictures_and_reads_no_more(folder, read):
    (folder / "a" / "3.png").write_bytes(b"broken")
    told, found = opened(folder, limit=3)
    assert [picture.path.name for picture in found] == ["0.png", "6.png", "1.png"]
    assert sorted(read) == ["0.png", "1.png", "3.png", "6.png"]
    assert len([event for event in told if isinstance(event, Notice)]) == 1


def test_what_was_read_before_a_stop_is_not_read_again(folder, tmp_path, read):
    index, token = PictureIndex(tmp_path / "index.sqlite"), CancelToken()
    opening = scanning.open_folder(folder, token, index=index)
    next(opening)
    token.stop_now()
    with pytest.raises(Cancelled):
        list(opening)
    begun = set(read)
    read.clear()
    opened(folder, index=index)
    assert len(read) < 9
    assert set(read) | begun == {f"{number}.png" for number in range(9)}


def test_two_openings_at_once_share_an_index(folder, tmp_path):
    one, two = (scanning.open_folder(folder, CancelToken(), index=PictureIndex(tmp_path / "index.sqlite"))
                for _ in range(2))
    for _ in range(3):
        next(one)
        next(two)
    assert len(list(one)) > 1
    assert len(list(two)) > 1


def test_a_relative_folder_and_names_of_no_unicode(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    odd = os.fsencode(folder) + b"/c/\xff\xfe.png"
    with open(odd, "wb") as file:  # noqa: PTH123 - no text
        file.write((folder / "a" / "0.png").read_bytes())
    _, found = opened(Path("pictures"))
    assert found[0].path == Path("pictures/a/0.png")
    assert found[9].path.exists()
