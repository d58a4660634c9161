"""Remarks on pictures and captions, and the index that spares reading them again."""
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from lib_sdtrain.data import scanning
from lib_sdtrain.data.concepts import Material, Picture
from lib_sdtrain.data.index import PictureIndex
from lib_sdtrain.data.pictures import look_of
from lib_sdtrain.data.review import exact_twins, near_twins, remarks, words_alike
from lib_sdtrain.events import Notice
from lib_sdtrain.settings.run import Concept
from tests.data.folders import opened


def picture(name, caption=None, sha="", look=0):
    return Picture(Path(name), sha or name, (8, 8), caption, look=look)


def photo(seed):
    small = np.random.default_rng(seed).integers(0, 255, (6, 7, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((140, 120), Image.Resampling.BICUBIC)


def test_twins_are_found_by_bytes_and_by_looks():
    one, two = photo(1), photo(2)
    darker = ImageEnhance.Brightness(one.resize((70, 60))).enhance(0.8)
    looks = [("a", look_of(one)), ("b", look_of(two)), ("c", look_of(darker)), ("a", look_of(one))]
    assert exact_twins(looks) == [(0, 3)]
    assert near_twins(looks) == [(0, 2)]
    assert near_twins([("x", 0), ("y", 0)]) == []


@pytest.mark.parametrize("bits", [0, 1, 2, 3])
def test_looks_that_differ_in_three_bits_are_near_wherever_these_are(bits):
    rng = np.random.default_rng(0)
    for _ in range(50):
        look = int(rng.integers(1, 2**62))
        places = rng.choice(64, bits, replace=False)
        other = look ^ sum(1 << int(place) for place in places)
        assert len(near_twins([("a", look), ("b", other)])) == 1
    assert near_twins([("a", look), ("b", look ^ 0b10001000100010001)]) == []


def test_words_that_clip_splits_alike_are_named():
    assert words_alike(["bfan1", "bfan2", "sks", "zwx"]) == [("bfan1", "bfan2")]
    concept = Concept(instance_prompt="a photo of Bfan1 person", class_prompt="a photo of a person")
    other = Concept(instance_prompt="a photo of Bfan2 person", class_prompt="a photo of a person")
    said = [notice.text for notice in remarks([Material(concept, (picture("a"),)), Material(other, (picture("b"),))])]
    assert any("bfan1 and bfan2 alike but for one token" in text for text in said)
    tags = Material(Concept(), (picture("a", "1girl, 1boy, sks1"), picture("b", "1girl, 1boy, 2girls")))
    assert not [notice for notice in remarks([tags]) if "alike" in notice.text]


def test_odd_captions_are_counted():
    pictures = (picture("a", ""), picture("b", "dog, cat, dog"), picture("c"), picture("d", "a \ufffd b"))
    said = [notice.text for notice in remarks([Material(Concept(), pictures)])]
    assert said == [
        "1 of 4 pictures have no caption and take the prompt", "1 caption with an empty caption: a",
        "1 caption with a tag twice: b", "1 caption with broken characters: d",
    ]


def scanned(folder, index_file, monkeypatch):
    """(pictures by name, notices, names that were read)"""
    read, facts = [], scanning.read_facts
    monkeypatch.setattr(scanning, "read_facts", lambda path: read.append(path.name) or facts(path))
    told, pictures = opened(folder, index=PictureIndex(index_file))
    monkeypatch.setattr(scanning, "read_facts", facts)
    return {p.path.name: p for p in pictures}, [n for n in told if isinstance(n, Notice)], sorted(read)


def test_only_what_changed_is_read_again(tmp_path, monkeypatch):
    folder, index = tmp_path / "pictures", tmp_path / "index.sqlite"
    folder.mkdir()
    for number in range(5):
        photo(number).save(folder / f"{number}.png")
    (folder / "bad.png").write_bytes(b"no picture")
    first, notices, read = scanned(folder, index, monkeypatch)
    assert len(read) == 6
    assert "not a picture" in notices[0].text
    photo(9).save(folder / "3.png")
    (folder / "1.png").unlink()
    (folder / "0.txt").write_text("now with words")
    second, notices, read = scanned(folder, index, monkeypatch)
    assert read == ["3.png"]
    assert len(notices) == 1
    assert second["2.png"] == first["2.png"]
    assert second["2.png"].look == first["2.png"].look
    assert second["3.png"].sha256 != first["3.png"].sha256
    assert second["0.png"].caption == "now with words"
    assert "1.png" not in second
    index.write_bytes(b"this is no database " * 100)
    for left in tmp_path.glob("index.sqlite-*"):
        left.unlink()
    third, _, read = scanned(folder, index, monkeypatch)
    assert len(read) == 5
    assert third == second
