"""Captions and pictures changed over the API: shown, written, followed, stopped, taken back, kept in their folders."""
from __future__ import annotations

import json
import threading
from hashlib import sha256

import pytest
from PIL import Image

from lib_sdtrain.api import preparing
from lib_sdtrain.data import caption_edit
from tests.api.sites import PRESET, client_of, services_in
from tests.fake_engine import FakeEngine

V1 = "/sdtrain/v1"
WORDS = {"a": "Bfan2, red hair, smile", "b": "Bfan22, red hair"}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "subject"
    folder.mkdir()
    for name, size in (("a", (200, 100)), ("b", (100, 200)), ("c", (90, 90))):
        Image.new("RGB", size, (ord(name), 0, 0)).save(folder / f"{name}.png")
    for name, words in WORDS.items():
        (folder / f"{name}.txt").write_text(words + "\n")
    return folder


@pytest.fixture
def site(tmp_path, folder):
    services = services_in(tmp_path, FakeEngine(str(folder)))
    return services, client_of(services)


def asked(site, act, code=200, **body):
    """A piece of work as it ended, or the problems of a refusal."""
    services, client = site
    found = client.post(f"{V1}/preparing", json={"preset": PRESET, "act": act, **body})
    assert found.status_code == code, found.text
    if code != 200:
        return found.json()["problems"]
    assert services.preparing.find(found.json()["id"]).done.wait(20)
    return client.get(f"{V1}/preparing/{found.json()['id']}").json()


def texts(folder):
    return {path.stem: path.read_text().strip() for path in sorted(folder.rglob("*.txt"))}


def test_tags_are_counted(site, folder):
    work = asked(site, "tags")
    assert work["state"] == "done"
    assert work["result"] == {"pictures": 3, "captions": 2, "empty": 0, "more": 0, "folder": str(folder),
                              "tags": [["red hair", 2], ["Bfan2", 1], ["Bfan22", 1], ["smile", 1]]}


def test_a_change_is_shown_written_and_taken_back(site, folder):
    change = {"find": "Bfan2", "replace": "Bofa2", "word": True, "remove": ["smile"], "first": ["1girl"]}
    work = asked(site, "show", **change)
    assert work["result"]["captions"] == 2
    assert work["result"]["changes"][0] == {
        "file": "a.txt", "before": WORDS["a"], "after": "1girl, Bofa2, red hair"}  # fmt: skip
    assert texts(folder) == WORDS
    assert asked(site, "write", **change)["result"] == {"folder": str(folder), "captions": 2}
    assert texts(folder) == {"a": "1girl, Bofa2, red hair", "b": "1girl, Bfan22, red hair"}
    assert asked(site, "undo")["result"]["files"] == 2
    assert texts(folder) == WORDS
    again = asked(site, "undo")
    assert (again["state"], again["problems"][0]["what"]) == ("failed", "there is nothing to take back")


def test_pictures_are_resized_and_moved_and_that_is_taken_back(site, folder, tmp_path):
    out = tmp_path / "made"
    work = asked(site, "resize", out=str(out), settings={"data": {"resolution": "64"}})
    assert (work["result"]["pictures"], work["result"]["folder"]) == (3, str(out))
    with Image.open(out / "a.png") as image:
        assert image.size == (64, 64)
    assert asked(site, "undo", folder=str(out))["result"]["files"] == 5
    assert list(out.glob("*.png")) == []
    moved = tmp_path / "smiling"
    assert asked(site, "move", out=str(moved), tag="smile")["result"]["pictures"] == 1
    assert sorted(path.name for path in moved.glob("?.*")) == ["a.png", "a.txt"]
    asked(site, "undo", folder=str(moved))
    assert texts(folder) == WORDS


@pytest.mark.parametrize(("body", "where"), [
    ({"act": "show"}, "find"), ({"act": "resize"}, "out"), ({"act": "move", "out": "x"}, "tag"),
    ({"act": "tags", "folder": "nowhere"}, "folder"), ({"act": "resize", "out": "subject/below"}, "out"),
])
def test_mistakes_are_told_at_once(site, tmp_path, monkeypatch, body, where):
    monkeypatch.chdir(tmp_path)
    (problem,) = asked(site, code=422, **body)
    assert problem["where"] == where


@pytest.mark.parametrize("find", ["(", "a{99999999999999999999}", "(" * 4000 + ")" * 4000])
def test_a_wrong_expression_is_told_when_it_is_met(site, find):
    work = asked(site, "show", find=find, regex=True)
    assert work["state"] == "failed"
    assert "not a regular expression" in work["problems"][0]["what"]


def test_what_breaks_in_an_unforeseen_way_ends_the_work(site, monkeypatch):
    monkeypatch.setattr(preparing, "statistics", lambda *given: 1 / 0)
    work = asked(site, "tags")
    assert (work["state"], work["problems"][0]["what"]) == (
        "failed", "it ended unexpectedly: ZeroDivisionError: division by zero")  # fmt: skip


def test_a_change_of_nothing_leaves_the_last_one_to_be_taken_back(site, folder):
    asked(site, "write", find="red", replace="blue")
    asked(site, "write", find="green", replace="blue")
    asked(site, "undo")
    assert texts(folder) == WORDS


@pytest.mark.parametrize("entry", [
    {"moved": "{folder}/y.txt", "to": "{else}/y.txt"}, {"moved": "{else}/run.py", "to": "{folder}/a.txt"},
    {"file": "{else}/y.txt", "before": "bad", "after": sha256(b"kept").hexdigest()},
    {"file": "{folder}/../../elsewhere/y.txt", "before": None, "after": sha256(b"kept").hexdigest()},
    {"moved": "{else}/a.txt", "to": "{folder}/a.txt"}, ["no entry"],
])
def test_a_journal_that_came_with_the_pictures_puts_nothing_elsewhere(tmp_path, entry):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "y.txt").write_text("kept")
    services = services_in(home, local=False)
    folder = home / "subject"
    (folder / "a.txt").write_text("words")
    said = json.dumps([entry]).replace("{else}", str(elsewhere)).replace("{folder}", str(folder))
    (folder / ".sdtrain-undo.json").write_text(said)
    work = asked((services, client_of(services)), "undo", folder=str(folder))
    assert work["state"] == "failed"
    assert [path.name for path in elsewhere.iterdir()] == ["y.txt"]
    assert (elsewhere / "y.txt").read_text() == "kept"
    assert (folder / "a.txt").read_text() == "words"


def test_a_change_can_be_stopped_and_two_do_not_meet(site, folder, monkeypatch):
    monkeypatch.setattr(caption_edit, "AT_ONCE", 1)
    services, client = site
    reached, go_on, write = threading.Event(), threading.Event(), caption_edit.Journal.write

    def slow(journal, path, content):
        write(journal, path, content)
        reached.set()
        assert go_on.wait(20)

    monkeypatch.setattr(caption_edit.Journal, "write", slow)
    body = {"preset": PRESET, "act": "write", "find": "red", "replace": "blue"}
    name = client.post(f"{V1}/preparing", json=body).json()["id"]
    assert reached.wait(20)
    (problem,) = asked(site, "tags", code=422)
    assert "another change is under way" in problem["what"]
    assert client.delete(f"{V1}/preparing/{name}").json() == {"stopped": True}
    go_on.set()
    assert services.preparing.find(name).done.wait(20)
    found = client.get(f"{V1}/preparing/{name}").json()
    assert (found["state"], found["folder"]) == ("stopped", str(folder))
    assert client.get(f"{V1}/preparing").json()["id"] == name
    assert texts(folder)["b"] == WORDS["b"]
    assert asked(site, "undo")["result"]["files"] == 1
    assert texts(folder) == WORDS


def test_a_page_from_outside_stays_in_its_folders(tmp_path, folder):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    services = services_in(tmp_path / "home", local=False)
    site = services, client_of(services)
    for body in ({"act": "tags", "folder": str(elsewhere)}, {"act": "resize", "out": str(elsewhere / "x")}):
        (problem,) = asked(site, code=422, **body)
        assert "outside the folders that this page may use" in problem["what"]
