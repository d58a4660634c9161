"""A data set that is looked at before it is trained on: read in the background, listed, shown small, stopped."""
from __future__ import annotations

import io
import threading

import numpy as np
import pytest
from PIL import Image

from lib_sdtrain.data import scanning
from tests.api.sites import PRESET, client_of, services_in
from tests.fake_engine import FakeEngine

V1 = "/sdtrain/v1"


def photo(seed: int, size=(160, 128)) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path):
    """A wide picture, an upright one, one that is too small, twins, a broken one; two captions."""
    folder = tmp_path / "subject"
    (folder / "more").mkdir(parents=True)
    photo(1, (256, 128)).save(folder / "wide.png")
    photo(2, (128, 192)).save(folder / "more" / "upright.jpg", quality=95)
    photo(3, (64, 64)).save(folder / "tiny.png")
    photo(4).save(folder / "one.png")
    photo(4).save(folder / "two.png")
    photo(4).save(folder / "near.jpg", quality=90)
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "wide.txt").write_text("sks ball, blue, sks ball")
    (folder / "one.txt").write_text("sks ball, " + "very, " * 90)
    return folder


@pytest.fixture
def site(tmp_path, folder):
    services = services_in(tmp_path, FakeEngine(str(folder)))
    return services, client_of(services)


def look(site, **body):
    services, client = site
    found = client.post(f"{V1}/dataset", json={"preset": PRESET, **body})
    assert found.status_code == 200, found.text
    name = found.json()["id"]
    assert services.dataset.find(name).done.wait(60)
    return name, client.get(f"{V1}/dataset/{name}").json()


def rows(site, name, **query):
    return site[1].get(f"{V1}/dataset/{name}/pictures", params=query).json()


def test_a_data_set_is_read_listed_and_shown(site):
    name, found = look(site)
    assert found["state"] == "done", found
    report = found["report"]
    assert report["images"] == 6
    assert report["lists"] == {"all": 6, "cut": 5, "small": 1, "twins": 4, "bare": 4, "odd": 2}
    assert report["twins"] == {"the same": 1, "nearly the same": 1}
    assert next(one for one in report["notices"] if one["where"].endswith("broken.png"))["text"].startswith("left out")
    page = rows(site, name, count=4)
    assert page["total"] == 6
    assert [row["name"] for row in page["rows"]] == ["upright.jpg", "near.jpg", "one.png", "tiny.png"]
    upright = page["rows"][0]
    assert (upright["folder"], upright["size"], upright["bucket"]) == ("more", [128, 192], [128, 128])
    assert (upright["resize"], upright["crop"], upright["lost"]) == ([128, 192], [0, 32, 128, 128], 0.3333)
    assert [row["name"] for row in rows(site, name, first=4)["rows"]] == ["two.png", "wide.png"]
    assert rows(site, name, which="cut")["rows"][0]["name"] == "wide.png"
    assert [row["name"] for row in rows(site, name, which="small")["rows"]] == ["tiny.png"]
    assert {row["name"] for row in rows(site, name, search="SKS ball, b")["rows"]} == {"wide.png"}
    assert rows(site, name, which="bucket 128x128")["total"] == 6
    assert rows(site, name, which="nonsense") == {"total": 0, "rows": []}
    twins = rows(site, name, which="twins")["rows"]
    assert [row["twin"] for row in twins[:2]] == ["the same as two.png", "the same as one.png"]


def test_prompts_come_in_their_tokens(site):
    _, found = look(site, settings={"model.max_token_length": "75"})
    prompts = {prompt["text"]: prompt for prompt in found["report"]["prompts"]}
    short = prompts["a photo of sks cup"]
    assert short["chunks"] == [["a ", "photo ", "of ", "sks ", "cup "]]
    long = next(prompt for text, prompt in prompts.items() if "very" in text)
    assert [len(chunk) for chunk in long["chunks"]] == [75]
    assert long["cut"] == 2 * 90 + 3 - 75
    _, found = look(site, settings={"model.max_token_length": "225"})
    long = next(prompt for prompt in found["report"]["prompts"] if "very" in prompt["text"])
    assert sum(map(len, long["chunks"])) == 183
    assert long["cut"] == 0


def test_thumbnails_are_whole_upright_and_small(site):
    client = site[1]
    name, _ = look(site)
    answer = client.get(f"{V1}/dataset/{name}/pictures/0?mark=x")
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).size == (128, 192)
    for number in (6, 10**15):
        assert client.get(f"{V1}/dataset/{name}/pictures/{number}").status_code == 404
    assert client.get(f"{V1}/dataset/other/pictures/0").status_code == 404
    assert client.get(f"{V1}/dataset/other").json()["state"] == "gone"


def test_a_folder_is_looked_at_as_the_settings_would_use_it(site, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    photo(9, (300, 100)).save(other / "a.png")
    _, found = look(site, folder=str(other), settings={"data.bucketing": "kohya"})
    assert found["report"]["images"] == 1
    assert found["report"]["buckets"][0]["size"] == [192, 64]
    assert found["report"]["concepts"][0]["name"] == "other"
    with_class = {"data.concepts": [{"instance_dir": str(other), "instance_prompt": "sks", "class_prompt": "a ball",
                                     "class_dir": str(tmp_path / "class")}]}  # fmt: skip
    own_class = {"data.concepts": [{"instance_dir": str(other), "instance_prompt": "sks", "class_prompt": "a ball",
                                    "class_from": "own"}]}  # fmt: skip
    for settings in (with_class, own_class):
        _, found = look(site, folder=str(other), settings=settings)
        assert found["report"]["concepts"][0]["class_images"] == 0
    missing = site[1].post(f"{V1}/dataset", json={"preset": PRESET, "folder": str(tmp_path / "nowhere")})
    assert missing.status_code == 422
    assert "there is no folder" in missing.json()["problems"][0]["what"]


def test_paths_outside_are_refused_to_others(tmp_path, folder):
    services = services_in(tmp_path / "site", FakeEngine(str(folder)), local=False)
    answer = client_of(services).post(f"{V1}/dataset", json={"folder": str(folder)})
    assert answer.status_code == 422
    assert answer.json()["problems"][0]["where"] == "folder"


def test_reading_can_be_stopped_and_shows_how_far_it_is(site, monkeypatch):
    services, client = site
    go_on, facts = threading.Event(), scanning.read_facts
    monkeypatch.setattr(scanning, "read_facts", lambda path: go_on.wait(20) and facts(path))
    name = client.post(f"{V1}/dataset", json={"preset": PRESET}).json()["id"]
    assert client.get(f"{V1}/dataset/{name}").json()["state"] == "reading"
    assert rows(site, name) == {"total": 0, "rows": []}
    assert client.delete(f"{V1}/dataset/{name}").json() == {"stopped": True}
    go_on.set()
    assert services.dataset.find(name).done.wait(20)
    assert client.get(f"{V1}/dataset/{name}").json()["state"] == "stopped"
    assert client.delete(f"{V1}/dataset/{name}").json() == {"stopped": False}
