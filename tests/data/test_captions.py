"""Captions: where they come from, and how a sample changes them."""
import csv
import json
import math
import os
import random
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from lib_sdtrain.data import metadata
from lib_sdtrain.data.bigasp import make_prompt, read_aliases, score_tags, tag_count
from lib_sdtrain.data.captions import ZEROED, replace_words, split_tags, vary_caption
from lib_sdtrain.data.concepts import Captions, Material, Picture, prompt_of
from lib_sdtrain.data.draws import Draws
from lib_sdtrain.data.filters import Filter
from lib_sdtrain.data.index import PictureIndex, connected, fill_rows, learn
from lib_sdtrain.data.metadata import MetadataFile
from lib_sdtrain.errors import UserError
from lib_sdtrain.settings.run import Concept, DataSettings
from tests.data.folders import opened


def varied(caption, count=400, **data):
    return [vary_caption(caption, DataSettings(**data), random.Random(seed)) for seed in range(count)]


def test_the_keep_separator_holds_both_ends():
    for said in varied("1girl, sks ||| a, b, c, d ||| end, fin", shuffle_caption=True, keep_tokens_separator="|||"):
        tags = said.split(", ")
        assert tags[:2] == ["1girl", "sks"]
        assert sorted(tags[2:6]) == list("abcd")
        assert tags[6:] == ["end", "fin"]
    assert varied("a ||| b", 1, keep_tokens_separator="|||") == ["a, b"]
    orders = set(varied("x, a, b, c", shuffle_caption=True, keep_tokens=1))
    assert len(orders) == 6
    assert all(order.startswith("x, ") for order in orders)


def test_another_separator():
    said = set(varied("a dog; in the rain; at night", shuffle_caption=True, caption_separator=";"))
    assert len(said) == 6
    assert "in the rain; a dog; at night" in said


@pytest.mark.parametrize(("mode", "expected"), [
    ("empty", {""}), ("space", {" "}), ("zeroed", {ZEROED}), ("split", {"", ZEROED})])
def test_what_stands_for_a_dropped_caption(mode, expected):
    assert set(varied("a dog", caption_dropout_rate=1.0, caption_dropout_mode=mode)) == expected


def test_wildcards_choose_lines_and_alternatives():
    said = Counter(varied("a {red|blue} {{dog}} {x}\na cat", 2000, enable_wildcard=True))
    assert set(said) == {"a red {dog} {x}", "a blue {dog} {x}", "a cat"}
    assert abs(said["a cat"] - 1000) < 4 * math.sqrt(500)
    assert varied("a {red|blue} dog", 1) == ["a {red|blue} dog"]


def test_underscores_and_brackets():
    assert varied("long_hair, ^_^, sky", 1, underscores="spaces") == ["long hair, ^_^, sky"]
    assert set(varied("long_hair, sky", underscores="random")) == {"long hair, sky", "long_hair, sky"}
    assert varied(r"rem \(re:zero\), a_b", 1, unescape_brackets=True) == ["rem (re:zero), a_b"]


def test_trigger_words_change_from_a_sample_on():
    assert replace_words("Bfan2, Bfan22 and xBfan2: Bfan2", {"Bfan2": "Bofa2"}) == "Bofa2, Bfan22 and xBfan2: Bofa2"
    assert replace_words("a b, b a", {"a b": "x", "b": "y"}) == "x, y a"
    pictures = (Picture(Path("a.png"), "a", (8, 8), "Bfan2 smiles"),)
    draws = Draws([Material(Concept(), pictures)], DataSettings(replace_words={"Bfan2": "Bofa2"}), 0, replace_from=3)
    assert [draws.at(n).prompt for n in range(5)] == ["Bfan2 smiles"] * 3 + ["Bofa2 smiles"] * 2


def test_templates():
    picture = Picture(Path("dogs/rex_01.png"), "", (8, 8), "on grass", {"artist": "me", "tags": ["a", "b"]})
    assert prompt_of("on grass", "[folder] [name], [filewords]", picture) == "dogs rex_01, on grass"
    assert prompt_of("x", "by [column:artist]: [column:tags] [column:none][filewords]", picture) == "by me: a, b x"


ROWS = [{"file_name": "a.png", "caption": "a dog", "tags": "dog, grass", "score": 3},
        {"file_name": "sub/b.png", "text": "a cat", "score": 0}]


def written(folder, name):
    path = folder / name
    if name.endswith(".json"):
        path.write_text(json.dumps({row["file_name"]: row for row in ROWS}))
    elif name.endswith(".jsonl"):
        path.write_text("\n".join(json.dumps(row) for row in ROWS))
    elif name.endswith(".csv"):
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, ["file_name", "caption", "text", "tags", "score"])
            table.writeheader()
            table.writerows(ROWS)
    else:
        parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
        names = dict.fromkeys(name for row in ROWS for name in row)
        parquet.write_table(arrow.table({name: [row.get(name) for row in ROWS] for name in names}), path)
    return str(path)


@pytest.mark.parametrize("name", ["meta.json", "meta.jsonl", "meta.csv", "meta.parquet"])
def test_one_file_for_all_captions(tmp_path, name):
    captions = Captions(tmp_path, MetadataFile(written(tmp_path, name), "x"))
    caption, row = captions.of(tmp_path / "a.png")
    assert caption == "a dog, dog, grass"
    assert float(row["score"]) == 3
    assert captions.of(tmp_path / "sub" / "b.png")[0] == "a cat"
    assert captions.of(tmp_path / "c.png") == (None, {})
    assert captions.of(tmp_path / "a.png", "beside it")[0] == "beside it"
    by_tags = Captions(tmp_path, captions.metadata, column="tags")
    assert by_tags.of(tmp_path / "sub" / "b.png")[0] is None


def test_kohyas_keys_with_and_without_suffix_and_path(tmp_path):
    keys = {str(tmp_path / "x"): {"caption": "one", "train_resolution": [512, 512]}, "y": {"tags": "two"}}
    (tmp_path / "meta.json").write_text(json.dumps(keys))
    captions = Captions(tmp_path, MetadataFile(str(tmp_path / "meta.json"), "x"))
    assert captions.of(tmp_path / "x.png")[0] == "one"
    assert captions.of(tmp_path / "y.webp")[0] == "two"


def test_file_names_as_captions_and_lines(tmp_path):
    assert Captions(tmp_path, from_names=True).of(tmp_path / "a red dog_12_x.jpg")[0] == "a red dog"
    (tmp_path / "a.txt").write_text("one\n\n  two  words\n")
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    for keep_lines, caption in ((False, "one two words"), (True, "one\ntwo words")):
        _, found = opened(tmp_path, captions=Captions(tmp_path, keep_lines=keep_lines))
        assert found[0].caption == caption


@pytest.mark.parametrize(("name", "content", "said"), [
    ("m.json", "{", "cannot be read"), ("m.json", "3", "neither pictures by name"), ("m.json", "[3]", "no mapping"),
    ("m.jsonl", '{"file": "a"}\n{', "line 2 is not JSON"), ("m.csv", "a,b\n1,2\n", "names no picture"),
    ("m.csv", b"file_name\n\xff\n", "cannot be read"), ("m.xml", "<a/>", "of no kind that is read"),
    ("m.json", "{}", "names no picture"),
])
def test_metadata_that_cannot_be_read_is_said_in_one_line(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=said) as caught:
        MetadataFile(str(path), "data.concepts.0.metadata_file")
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(("expression", "row", "expected"), [
    ("score > 0", {"score": 3}, True), ("score > 0", {"score": "0"}, False), ("score > 0", {}, False),
    ("score > 0", {"score": ""}, False), ("1 <= score < 5 and rating != 'e'", {"score": "4", "rating": "g"}, True),
    ("rating in ['g', 's'] or score >= 9", {"score": 9, "rating": "e"}, True), ("not score > 2", {"score": 1}, True),
    ("'dog' in tags", {"tags": "a dog"}, True), ("score == -1", {"score": -1}, True),
])
def test_filters(expression, row, expected):
    assert Filter(expression)(row) is expected


@pytest.mark.parametrize(("expression", "row", "expected"), [
    ("name == '0123'", {"name": "0123"}, True), ("name == '123'", {"name": "0123"}, False),
    ("name != '0123'", {"name": "0123"}, False), ("'0123' == name", {"name": "0123"}, True),
    ("name < '0200'", {"name": "0123"}, True), ("name < '0200'", {"name": "portrait"}, False),
    ("name in ['0123', '0124']", {"name": "0123"}, True), ("name not in ['123']", {"name": "0123"}, True),
    ("name in '0123'", {"name": "012"}, True), ("'12' in name", {"name": "0123"}, True),
    ("'1' in tags", {"tags": "1"}, True), ("name in tags", {"name": "12", "tags": "12"}, True),
    ("folder == '2024'", {"folder": "2024"}, True), ("name == '1e3'", {"name": "1000"}, False),
    ("name == folder", {"name": "01", "folder": "1"}, False), ("name == id", {"name": "01", "id": "01"}, True),
    ("'100' <= name < '200'", {"name": "150"}, True), ("name == 'nan'", {"name": "nan"}, True),
    # a number asks for a number, also of what a CSV writes as text
    ("name < 2", {"name": "0001"}, True), ("score == 5", {"score": "5.0"}, True), ("5 == score", {"score": "5"}, True),
    ("score in [4, 5]", {"score": "5"}, True), ("score in [-5]", {"score": "-5"}, True),
    ("score > lowest", {"score": "10", "lowest": "9"}, True), ("score > lowest", {"score": "10", "lowest": 9}, True),
    ("-score < 0", {"score": "3"}, True), ("score and name", {"score": "0", "name": "a"}, False),
    ("not score", {"score": "0"}, True), ("score == '5'", {"score": "5"}, True), ("score == '5'", {"score": 5}, False),
    ("rating == 'e' or score > 3", {"rating": "g", "score": "4"}, True), ("'dog' in tags", {"tags": ["dog"]}, True),
])
def test_quoted_values_are_text_and_numbers_numbers(expression, row, expected):
    assert Filter(expression)(row) is expected


def test_a_number_that_begins_with_zero_is_to_be_quoted():
    with pytest.raises(UserError, match="is not an expression") as caught:
        Filter("name == 0123")
    assert "quotes" in caught.value.problems[0].fix


@pytest.mark.parametrize("expression", [
    "score =", "score = 3", "__import__('os')", "a.b > 1", "score > f(1)", "x" * 3000])
def test_filters_are_comparisons_and_nothing_else(expression):
    with pytest.raises(UserError, match=r"data\.filter"):
        Filter(expression)


@pytest.mark.parametrize(("expression", "row"), [
    ("score > 3", {"score": "good"}), ("score > '5'", {"score": "10"}), ("'5' <= score", {"score": "10"}),
    ("score > '5'", {"score": 10}),
])
def test_a_filter_that_compares_text_with_a_number_says_so(expression, row):
    with pytest.raises(UserError, match="text where the filter has a number") as caught:
        Filter(expression)(row)
    assert "without quotes" in caught.value.problems[0].fix


def normal(x):
    return 0.5 * (1 + math.erf((x - 32) / 19.8 / math.sqrt(2)))


def test_bigasps_number_of_tags_is_its_distribution():
    """Chi-square over 100,000 draws: 5 takes everything below 6, then whole numbers, everything from 80 on in one."""
    rng, counts, draws = random.Random(0), Counter(), 100_000
    for _ in range(draws):
        counts[min(80, tag_count(10**6, 1, rng))] += 1
    expected = {5: normal(6), 80: 1 - normal(80)} | {n: normal(n + 1) - normal(n) for n in range(6, 80)}
    assert sum(expected.values()) == pytest.approx(1)
    assert expected[5] == pytest.approx(0.095, abs=0.001)
    distance = sum((counts[n] - draws * p) ** 2 / (draws * p) for n, p in expected.items())
    assert distance < 118.6                                         # 99.9 % of chi-square with 75 degrees


def test_bigasps_score_tags_spelling_and_aliases():
    rng = random.Random(1)
    counts = Counter(len(score_tags(7, rng)) for _ in range(9000))
    assert all(abs(counts[k] - 3000) < 5 * math.sqrt(2000) for k in (1, 2, 3))
    assert set(score_tags(0, rng)) == {"score_0"}
    assert {tag for _ in range(300) for tag in score_tags(2, rng)} == {"score_1_up", "score_2_up", "score_2"}
    tags = ["long_hair", "watermark", "dog", *(f"tag_{n}" for n in range(60))]
    kept = spaced = aliased = seen = comma = 0
    for seed in range(8000):
        said = make_prompt(tags, 5, random.Random(seed), aliases={"dog": ("hound",)})
        assert "watermark" in said
        assert said.startswith("score_")
        kept, spaced = kept + ("long_hair" in said), spaced + ("long hair" in said)
        aliased, seen = aliased + ("hound" in said), seen + ("dog" in said) + ("hound" in said)
        comma += " " not in said.replace(", ", ",").replace("score", "")
    assert kept / (kept + spaced) == pytest.approx(0.4, abs=0.02)
    assert aliased / seen == pytest.approx(0.2, abs=0.02)
    assert make_prompt(["a"], None, random.Random(0)) == "a"
    assert comma


def test_bigasps_prompts_of_a_run(tmp_path):
    (tmp_path / "aliases.yaml").write_text("dog: [hound]\ncat: feline\n")
    assert read_aliases(str(tmp_path / "aliases.yaml"), "x") == {"dog": ("hound",), "cat": ("feline",)}
    pictures = (Picture(Path("a.png"), "a", (8, 8), "dog, watermark, red_hat", {"score": "4"}),)
    data = DataSettings(
        caption_generator="bigasp", tag_aliases=str(tmp_path / "aliases.yaml"), caption_dropout_rate=0.2)
    draws = Draws([Material(Concept(), pictures)], data, 3)
    prompts = [draws.at(n).prompt for n in range(300)]
    assert 30 < prompts.count("") < 95
    assert all("watermark" in prompt for prompt in prompts if prompt)
    assert any("hound" in prompt for prompt in prompts)


def test_tags_are_split_as_people_write_them():
    assert split_tags(" a ,, b,c , ") == ["a", "b", "c"]


def test_a_metadata_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    path, index, read = Path(written(tmp_path, "meta.jsonl")), PictureIndex(tmp_path / "index.sqlite"), []
    parse = metadata.parse_json
    monkeypatch.setattr(metadata, "parse_json", lambda text: read.append(text) or parse(text))
    first = MetadataFile(str(path), "x", index)
    again = MetadataFile(str(path), "x", index)
    assert len(read) == len(ROWS)
    assert first.row(tmp_path / "a.png", tmp_path) == again.row(tmp_path / "a.png", tmp_path) == ROWS[0]

    path.write_text('{"file_name": "a.png", "caption": "another dog"}')
    changed = MetadataFile(str(path), "x", index)
    assert changed.row(tmp_path / "a.png", tmp_path)["caption"] == "another dog"
    assert changed.row(tmp_path / "sub" / "b.png", tmp_path) == {}
    assert again.row(tmp_path / "a.png", tmp_path) == ROWS[0]  # a run keeps what it began with

    path.write_text('{"file_name": "a.png", "caption": "a third dog"}\nand no more')
    with pytest.raises(UserError, match="line 2 is not JSON"):
        MetadataFile(str(path), "x", index)
    path.write_text('{"file_name": "c.png", "caption": "a third dog"}')
    assert MetadataFile(str(path), "x", index).row(tmp_path / "a.png", tmp_path) == {}


def test_names_and_words_that_are_no_valid_unicode(tmp_path):
    (tmp_path / "meta.json").write_text('{"caf\\udce9": {"caption": "half \\ud83d"}, "b": {"caption": "whole"}}')
    file = MetadataFile(str(tmp_path / "meta.json"), "x")
    assert file.row(tmp_path / os.fsdecode(b"caf\xe9.png"), tmp_path)["caption"].startswith("half")
    assert file.row(tmp_path / os.fsdecode(b"\xff.png"), tmp_path) == {}


def test_others_read_the_index_while_a_metadata_file_is_read(tmp_path):
    path, index = Path(written(tmp_path, "meta.jsonl")), PictureIndex(tmp_path / "index.sqlite")

    def read():
        other = connected(index)
        other.execute("pragma known.busy_timeout = 0")
        learn(other, [])
        other.close()
        yield b"a", "{}"

    base = connected(index)
    fill_rows(base, path, read)
    assert base.execute("select count(*) from known.rows").fetchone() == (1,)


def test_rows_of_metadata_are_not_held_in_memory(tmp_path):
    rows = 20_000
    lines = (json.dumps({"file_name": f"{n}.png", "caption": f"caption number {n} " * 10}) for n in range(rows))
    (tmp_path / "meta.jsonl").write_text("\n".join(lines))
    held = []
    for _ in range(3):  # threads of earlier tests may take memory meanwhile
        tracemalloc.start()
        file = MetadataFile(str(tmp_path / "meta.jsonl"), "x")
        held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert min(held) / rows < 2  # bytes; a dictionary would take some 900
    assert file.row(tmp_path / "19999.png", tmp_path)["caption"].startswith("caption number 19999 ")
