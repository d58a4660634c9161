"""Captions edited and pictures prepared by command, shown before and taken back after."""
import json

import pytest
from PIL import Image

from lib_sdtrain.cli.main import main
from lib_sdtrain.data import prepare
from lib_sdtrain.data.caption_edit import Edit
from lib_sdtrain.errors import UserError


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for name, size, caption in (("a", (260, 130), "Bfan2, red hair, smile"), ("sub/b", (100, 200), "Bfan22, red hair"),
                                ("c", (30, 30), None)):
        Image.new("RGB", size, "red").save(folder / f"{name}.png")
        if caption:
            (folder / f"{name}.txt").write_text(caption + "\n")
    return folder


def said(capsys, *arguments, code=0):
    assert main([*map(str, arguments), "--json"]) == code
    captured = capsys.readouterr()
    return json.loads(captured.out) if not code else captured.err


def texts(folder):
    return {path.name: path.read_text().strip() for path in sorted(folder.rglob("*.txt"))}


def test_captions_are_counted(capsys, folder):
    document = said(capsys, "captions", folder)
    assert (document["pictures"], document["captions"], document["empty"]) == (3, 2, 0)
    assert document["tags"] == {"red hair": 2, "Bfan2": 1, "Bfan22": 1, "smile": 1}


def test_a_change_is_shown_then_written_then_taken_back(capsys, folder):
    before = texts(folder)
    change = ("captions", folder, "--find", "Bfan2", "--replace", "Bofa2", "--word", "--remove", "smile",
              "--first", "1girl")
    document = said(capsys, *change)
    assert [entry["after"] for entry in document["changes"]] == ["1girl, Bofa2, red hair", "1girl, Bfan22, red hair"]
    assert texts(folder) == before
    said(capsys, *change, "--write")
    assert texts(folder) == {"a.txt": "1girl, Bofa2, red hair", "b.txt": "1girl, Bfan22, red hair"}
    assert said(capsys, "captions", folder, "--undo") == {"undone": 2}
    assert texts(folder) == before
    assert "nothing to take back" in said(capsys, "captions", folder, "--undo", code=2)


def test_what_was_changed_since_is_not_taken_back(capsys, folder):
    said(capsys, "captions", folder, "--find", "red", "--replace", "blue", "--write")
    (folder / "a.txt").write_text("by hand")
    assert "the file was changed since" in said(capsys, "captions", folder, "--undo", code=2)
    assert texts(folder) == {"a.txt": "by hand", "b.txt": "Bfan22, blue hair"}


def test_edits():
    assert Edit("r(.)d", r"b\1g", regex=True)("red hair") == "beg hair"
    assert Edit(last=("end",))("a, end, b") == "a, b, end"
    assert Edit(remove=("b",), separator=";")("a; b; c") == "a; c"


def test_a_wrong_expression_is_said(capsys, folder):
    assert "not a regular expression" in said(capsys, "captions", folder, "--find", "(", "--regex", code=2)


def test_pictures_are_resized_as_training_would_and_taken_back(capsys, folder, tmp_path):
    out = tmp_path / "out"
    settings = ("--set", "data.resolution=128", "--set", "data.bucketing=kohya", "--set", "data.too_small=leave_out")
    document = said(capsys, "prepare", folder, "--out", out, *settings)
    assert document == {"out": str(out), "pictures": 2, "left_out": 1}
    with Image.open(out / "sub" / "b.png") as image:
        assert image.size == (64, 192)
    assert texts(out) == texts(folder)
    assert "would be overwritten" in said(capsys, "prepare", folder, "--out", out, *settings, code=2)
    assert said(capsys, "prepare", out, "--undo") == {"undone": 4}
    assert not [path for path in out.rglob("*") if path.is_file()]


def test_pictures_move_by_tag_and_back(capsys, folder, tmp_path):
    before, out = texts(folder), tmp_path / "smiles"
    assert said(capsys, "prepare", folder, "--out", out, "--move-tag", "smile")["pictures"] == 1
    assert sorted(path.name for path in out.iterdir() if path.name[0] != ".") == ["a.png", "a.txt"]
    said(capsys, "prepare", out, "--undo")
    assert texts(folder) == before
    assert (folder / "a.png").is_file()


def test_a_result_needs_a_folder_of_its_own(capsys, folder):
    assert "folder of its own" in said(capsys, "prepare", folder, "--out", folder / "sub", code=2)
    assert "no folder for the result" in said(capsys, "prepare", folder, code=2)


def test_two_pictures_of_one_name_are_found_among_thousands(tmp_path):
    targets = [tmp_path / f"{number}.png" for number in range(3000)]
    prepare._check_free(targets)
    with pytest.raises(UserError, match="overwritten"):
        prepare._check_free([*targets, tmp_path / "7.png"])
