"""Buckets against the published tables, and where pictures land."""
import csv
import json
import math
import random
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lib_sdtrain.cli.main import main
from lib_sdtrain.data.sizes import Misfit, kohya_sizes, sizing_of
from lib_sdtrain.errors import UserError
from lib_sdtrain.settings.run import DataSettings

HERE = Path(__file__).parent
ARB = {name: block["arb"] for name, block in yaml.safe_load((HERE / "bpmodel_arb.yaml").read_text()).items()}
NAIFU_512 = """256×1024 320×1024 384×1024 384×960 384×896 448×832 512×768 512×704 512×512 576×640 640×576 704×512
768×512 832×448 896×384 960×384 1024×384 1024×320 1024×256"""
NAIFU_768 = """512×1728 512×1664 512×1600 576×1536 576×1472 576×1408 640×1344 640×1280 704×1216 768×1152 768×1088
768×768 832×1024 896×960 960×896 1024×832 1088×768 1152×768 1216×704 1280×640 1344×640 1408×576 1472×576 1536×576
1600×512 1664×512 1728×512"""
NAIFU_1024 = """960×1600 1024×1536 1024×1472 1024×1024 1088×1408 1152×1344 1216×1280 1280×1216 1344×1152 1408×1088
1472×1024 1536×1024 1600×960"""
EVERYDREAM_512 = "512×512 576×448 640×384 768×320 832×256 896×256 960×256 1024×256"


def table(text):
    return [tuple(map(int, size.split("×"))) for size in text.split()]


def sizes(**data):
    return list(sizing_of(DataSettings(**data)).scheme.sizes)


@pytest.mark.parametrize(("data", "expected"), [
    ({"bucketing": "naifu", "resolution": "512"}, NAIFU_512),
    ({"arb": ARB["768"], "resolution": "768"}, NAIFU_768),
    ({"arb": ARB["1024"], "bucketing": "naifu", "resolution": "1024"}, NAIFU_1024),
])
def test_naifus_buckets_are_the_published_ones_in_its_order(data, expected):
    assert sizes(**data) == table(expected)


def test_bigasps_26_and_everydreams_15():
    rows = csv.DictReader((HERE / "bigasp_resolutions.csv").read_text().splitlines())
    published = {(int(row["width"]), int(row["height"])) for row in rows}
    assert len(sizes(bucketing="sdxl", resolution="1024")) == 26
    assert set(sizes(bucketing="sdxl", resolution="1024")) == published
    wide = table(EVERYDREAM_512)
    assert len(sizes(bucketing="everydream")) == 15
    assert set(sizes(bucketing="everydream")) == {*wide, *((h, w) for w, h in wide)}


def test_kohyas_counts():
    limits = ((512, 256, 1024, 17), (768, 256, 1536, 29), (1024, 512, 2048, 33))
    for side, low, high, count in limits:
        assert len(kohya_sizes(side * side, low, high, 64)) == count
    assert len(sizes(bucketing="kohya")) == 17
    assert len(sizes(bucketing="kohya", resolution="1024", min_bucket_reso=512)) == 33


@pytest.mark.parametrize(("data", "image", "bucket", "resize", "crop"), [
    # naifu: nearest by the difference of w/h: 1.7778 is nearer to 1.7143 (768×448 is no bucket of 512) than to 1.857
    ({"bucketing": "naifu"}, (1920, 1080), (832, 448), (832, 468), (0, 10)),
    # |1.25 - 1.25| = 0; an exact size of kohya is left alone
    ({"bucketing": "kohya"}, (640, 384), (640, 384), (640, 384), (0, 0)),
    ({"bucketing": "kohya"}, (1000, 1000), (512, 512), (512, 512), (0, 0)),
    # bigASP: 1.7778 to 1344×768 (1.75); int(1920 · 0.71111 + 0.5) = 1365
    ({"bucketing": "sdxl", "resolution": "1024"}, (1920, 1080), (1344, 768), (1365, 768), (10, 0)),
    # EveryDream1: 0.75 to 448×576 (0.778)
    ({"bucketing": "everydream"}, (600, 800), (448, 576), (448, 597), (0, 10)),
    # none: the centre of one size; padding keeps all of the picture
    ({}, (640, 480), (512, 512), (683, 512), (85, 0)),
    ({"resize": "pad"}, (640, 320), (512, 512), (512, 256), (0, -128)),
    ({"bucketing": "kohya", "resize": "pad"}, (1024, 768), (576, 448), (576, 432), (0, -8)),
])
def test_where_pictures_land(data, image, bucket, resize, crop):
    place = sizing_of(DataSettings(**data)).place(image)
    assert (place.bucket, place.resize, place.fit().crop) == (bucket, resize, (*crop, *bucket))


@pytest.mark.parametrize(("image", "bucket", "resize"), [
    ((500, 300), (448, 256), (500, 300)),       # under the budget: as it is, cut to the step
    ((512, 512), (512, 512), (512, 512)),
    # 2000×1000 over 512²: 724.1×362.0; by width 704 -> 352 -> 320 (2.2), by height 320 -> 640 (2.0, exact)
    ((2000, 1000), (640, 320), (640, 320)),
    # 1920×1080: 682.7×384 -> by width 640, 360 -> 320 (2.0); by height 384, 683 -> 640 (1.667): the smaller error wins
    ((1920, 1080), (640, 384), (683, 384)),
])
def test_kohya_without_upscaling(image, bucket, resize):
    place = sizing_of(DataSettings(bucketing="kohya", bucket_no_upscale=True)).place(image)
    assert (place.bucket, place.resize) == (bucket, resize)


def test_what_has_no_place_says_why():
    with pytest.raises(Misfit, match="max_ar_error"):
        sizing_of(DataSettings(arb=ARB["768"])).place((7400, 1000))
    assert sizing_of(DataSettings(arb=ARB["768"])).place((7300, 1000)).bucket == (1728, 512)
    with pytest.raises(Misfit, match="smaller than its bucket 1024x1024"):
        sizing_of(DataSettings(bucketing="sdxl")).place((1000, 1000))
    assert sizing_of(DataSettings(bucketing="sdxl", too_small="enlarge")).place((1000, 1000)).bucket == (1024, 1024)
    with pytest.raises(Misfit, match="smaller than one step"):
        sizing_of(DataSettings(bucketing="kohya", bucket_no_upscale=True)).place((60, 400))


def test_our_own_cuts_away_least_of_any_photographs_and_stays_in_the_budget():
    rng, lost = random.Random(0), {}
    images = [(max(64, int(1000 * 2 ** rng.gauss(0, 0.5))), 1000) for _ in range(500)]
    for name in ("none", "least_waste", "naifu", "kohya", "everydream"):
        places = [sizing_of(DataSettings(bucketing=name)).place(image) for image in images]
        lost[name] = sum(place.lost() for place in places) / len(places)
    assert min(lost, key=lost.get) == "least_waste"
    assert lost["least_waste"] < 0.6 * lost["kohya"]
    assert all(512 * 512 * 3 / 4 <= w * h <= 512 * 512 for w, h in sizes(bucketing="least_waste"))


@given(st.sampled_from(["none", "least_waste", "naifu", "kohya", "everydream"]), st.integers(20, 6000),
       st.integers(20, 6000), st.sampled_from(["cover", "pad"]), st.floats(0, 1), st.floats(0, 1))
def test_every_crop_lies_within_the_resized_picture(bucketing, width, height, resize, x, y):
    try:
        place = sizing_of(DataSettings(bucketing=bucketing, resize=resize)).place((width, height))
    except Misfit:
        return
    left, top, w, h = place.fit((x, y)).crop
    if resize == "cover":
        assert 0 <= left <= place.resize[0] - w
        assert 0 <= top <= place.resize[1] - h
        assert abs(math.log(place.resize[0] * height / place.resize[1] / width)) < 1 / min(place.resize)
    else:
        assert place.resize[0] == w or place.resize[1] == h


@pytest.mark.parametrize(("data", "where"), [
    ({"arb": {"base_res": [512], "divisible": 0, "min_dimm": 3}}, "data.arb.min_dimm"),
    ({"arb": {"enabled": True}, "bucketing": "kohya"}, "data.arb"),
    ({"bucketing": "everydream", "resolution": "520"}, "data.resolution"),
    ({"bucketing": "naifu", "resolution": "512x768"}, "data.resolution"),
    ({"bucketing": "kohya", "min_bucket_reso": 100}, "data.min_bucket_reso"),
    ({"bucketing": "kohya", "min_bucket_reso": 1024, "max_bucket_reso": 512}, "data.max_bucket_reso"),
    ({"bucketing": "least_waste", "min_bucket_reso": 1024}, "data.min_bucket_reso"),
    ({"arb": {**ARB["768"], "min_dim": 4096}}, "data.arb"),
])
def test_contradictory_buckets_are_refused_in_words(data, where):
    with pytest.raises(UserError) as caught:
        sizing_of(DataSettings(**data))
    assert where in [problem.where for problem in caught.value.problems]


def test_an_arb_block_that_is_off_changes_nothing():
    assert sizes(arb={**ARB["768"], "enabled": False}) == [(512, 512)]


def test_the_command_prints_the_table_and_every_place(capsys, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({"data": {"resolution": 768, "arb": ARB["768"]}}))
    assert main(["buckets", "--config", str(config), "--image", "1920x1080", "--image", "9000x1000", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["buckets"] == [list(size) for size in table(NAIFU_768)]
    assert document["images"][0] == {
        "image": [1920, 1080], "bucket": [1216, 704], "resize": [1252, 704], "crop": [18, 0, 1216, 704]}
    assert "max_ar_error" in document["images"][1]["rejected"]
    assert main(["buckets", "--config", str(config), "--image", "1920"]) == 2
    assert "write WIDTHxHEIGHT" in capsys.readouterr().err
