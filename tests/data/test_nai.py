"""naifu's NAI captions, by hand-worked cases and by what holds of all of them."""
from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_sdtrain.data.concepts import Material, Picture
from lib_sdtrain.data.draws import Draws
from lib_sdtrain.data.nai import USELESS, nai_caption, tags_of
from lib_sdtrain.errors import Problems
from lib_sdtrain.settings.idle import idle_paths
from lib_sdtrain.settings.run import Concept, DataSettings, RunSettings
from lib_sdtrain.train.data_checks import check_data

GENERAL = [f"tag_{number}" for number in range(100)]


def said(tags, fewest=24, most=72, count=300):
    """Captions of as many samples, without the beginning, as tags."""
    captions = [nai_caption(tags, fewest, most, random.Random(seed)) for seed in range(count)]
    assert all(caption.startswith("Tags: ") for caption in captions)
    return [caption.removeprefix("Tags: ").split(", ") for caption in captions]


@pytest.mark.parametrize(("tags", "caption"), [
    (["highres", "long_hair"], "Tags: long hair"),
    (["absurdres", "meta:highres", "general:bad_id", "translation request"], ""),
    ([], ""),
    (["rating:explicit", "1girl"], "Tags: nsfw, 1girl, rating:explicit"),
    (["rating:safe", "1girl"], "Tags: 1girl, rating:safe"),
    (["1girl", "nsfw"], "Tags: nsfw, 1girl"),
    (["meta:scan", "bad_hands"], "Tags: bad hands, scan"),
    (["6+girls", "long_hair", "long_hair"], "Tags: 6+girls, long hair"),
    (["re:zero", "2boys"], "Tags: 2boys, re:zero"),
])
def test_hand_worked_captions(tags, caption):
    assert {nai_caption(tags, 24, 72, random.Random(seed)) for seed in range(20)} == {caption}


def test_a_type_is_left_out_three_times_of_four():
    tags = ["artist:some_one", "copyright:a_show", "character:rem", "general:long_hair"]
    for tag, bare in zip(tags, ("some one", "a show", "rem", "long hair"), strict=True):
        counts = Counter(caption[0] for caption in said([tag], count=4000))
        assert set(counts) == {bare, tag.replace("_", " ")}
        assert abs(counts[bare] - 3000) < 5 * math.sqrt(4000 * 0.75 * 0.25)


def test_how_many_are_drawn_is_even_and_their_order_random():
    counts = Counter(len(caption) for caption in said(GENERAL, 24, 72, 9800))
    assert set(counts) == set(range(24, 73))
    distance = sum((counts[number] - 200) ** 2 / 200 for number in range(24, 73))
    assert distance < 84  # 99.9 % of chi-square with 48 degrees
    firsts = Counter(caption[0] for caption in said(GENERAL, 24, 72, 5000))
    assert sum((firsts[tag.replace("_", " ")] - 50) ** 2 / 50 for tag in GENERAL) < 149  # 99 degrees


def test_what_is_always_kept_stands_first_and_uses_up_none_but_when_it_is_drawn_again():
    tags = [*GENERAL[:30], "character:rem", "1girl", *GENERAL[30:60], "artist:x", "bad_anatomy"]
    for caption in said(tags, 10, 10):
        kept = [tag.rpartition(":")[2] for tag in caption[:4]]
        assert kept == ["rem", "1girl", "x", "bad anatomy"]
        assert 10 <= len(caption) <= 14


KINDS = st.sampled_from(["", "artist:", "copyright:", "character:", "general:", "meta:", "rating:"])
NAMES = st.sampled_from(["a_b", "c", "1girl", "6+boys", "3girls", "7girls", "bad_hands", "nsfw", "safe", "explicit",
                         "^_^", *sorted(USELESS)[:5]])  # fmt: skip
PEOPLE = ("1girl", "3girls", "6+boys", "bad hands")


@settings(deadline=None, max_examples=300)
@given(st.lists(st.builds(str.__add__, KINDS, NAMES), max_size=40), st.integers(0, 9), st.integers(0, 9), st.integers())
def test_whatever_the_tags(tags, fewest, more, seed):
    caption = nai_caption(tags, fewest, fewest + more, random.Random(seed))
    found = caption.removeprefix("Tags: ").split(", ") if caption else []
    names = [tag.rpartition(":")[2] for tag in found]
    assert len(found) == len(set(found))
    assert not {name.replace(" ", "_") for name in names} & USELESS
    assert not any("_" in tag or tag.startswith("meta:") for tag in found)
    explicit = any(tag == "rating:explicit" or (tag.endswith("nsfw") and not tag.startswith("rating:")) for tag in tags)
    assert (found[:1] == ["nsfw"]) == explicit
    wanted = [tag for tag in dict.fromkeys(tags) if tag.rpartition(":")[2] not in USELESS]
    kept = [tag.rpartition(":")[2].replace("_", " ") for tag in wanted
            if tag.startswith(("artist:", "copyright:", "character:"))
            or tag.rpartition(":")[2].replace("_", " ") in PEOPLE]  # fmt: skip
    assert set(kept) <= set(names)
    assert len(found) <= explicit + len(kept) + fewest + more
    if fewest >= len(wanted):
        assert {tag.rpartition(":")[2].replace("_", " ") for tag in wanted} <= set(names) | {"nsfw"}


def test_tags_stand_between_commas_or_spaces():
    assert tags_of("1girl, long hair ,, rem") == ["1girl", "long hair", "rem"]
    assert tags_of("1girl long_hair  rem") == ["1girl", "long_hair", "rem"]
    assert tags_of("Tags: 1girl, rem") == ["1girl", "rem"]
    assert tags_of("1girl; long hair", ";") == ["1girl", "long hair"]
    assert tags_of("") == []
    said_of_two = {nai_caption(tags_of("a,b;c", ";"), 2, 9, random.Random(seed)) for seed in range(30)}
    assert said_of_two == {"Tags: ab, c", "Tags: c, ab"}


def test_captions_of_a_run_vary_and_those_of_the_class_do_not():
    caption = ", ".join(["1girl", *GENERAL])
    material = Material(Concept(class_prompt="a_class, highres"), (Picture(Path("a.png"), "a", (8, 8), caption),),
                        (Picture(Path("b.png"), "b", (8, 8), None),))  # fmt: skip
    data = DataSettings(caption_generator="nai", caption_tags_min=3, caption_tags_max=5, caption_dropout_rate=0.2)
    draws = Draws([material], data, 3)
    prompts = [draws.at(number).prompt for number in range(300)]
    assert 30 < prompts.count("") < 95
    assert all(3 <= len(prompt.split(", ")) <= 6 for prompt in prompts if prompt)
    assert all(prompt.startswith("Tags: 1girl") for prompt in prompts if prompt)
    assert len(set(prompts)) > 200
    again = Draws([material], data, 3)
    assert [again.at(number).prompt for number in reversed(range(300))] == prompts[::-1]
    assert {draws.class_at(number).prompt for number in range(50)} <= {"a_class, highres", ""}
    assert draws.all_words() is None  # nothing is encoded ahead, nothing kept on disk
    assert Draws([material], DataSettings(), 3).all_words() is not None


def test_a_prompt_in_place_of_a_caption_has_words_and_no_tags():
    captions = {"a": None, "b": "sky x"}
    pictures = tuple(Picture(Path(f"{name}.png"), name, (8, 8), caption) for name, caption in captions.items())
    data = DataSettings(caption_generator="nai")
    draws = Draws([Material(Concept(instance_prompt="a photo of sks dog"), pictures)], data, 3)
    assert {draws.at(number).prompt for number in range(60)} == {"a photo of sks dog", "Tags: sky, x", "Tags: x, sky"}
    draws = Draws([Material(Concept(instance_prompt="sks, [filewords]"), pictures[1:])], data, 3)
    assert {draws.at(number).prompt for number in range(60)} == {"Tags: sks, sky x", "Tags: sky x, sks"}


def test_the_smaller_number_comes_first():
    problems = Problems()
    check_data(DataSettings(caption_generator="nai", caption_tags_min=9, caption_tags_max=5), problems)
    assert [problem.where for problem in problems.found] == ["data.caption_tags_min"]
    check_data(DataSettings(caption_tags_min=9, caption_tags_max=5), problems)
    assert len(problems.found) == 1


@pytest.mark.parametrize("generator", ["nai", "bigasp"])
@pytest.mark.parametrize(("name", "value"), [
    ("shuffle_caption", True), ("keep_tokens", 1), ("keep_tokens_separator", "|"), ("tag_dropout_rate", 0.5),
    ("enable_wildcard", True), ("underscores", "spaces"), ("unescape_brackets", True),
])  # fmt: skip
def test_what_is_out_of_sight_beside_a_generator_changes_no_caption(generator, name, value):
    """Not even the prompts of pictures without a caption and of the class."""
    captions = {"a": None, "b": r"sky_a, rem \(re:zero\), {x|y} | z"}
    pictures = tuple(Picture(Path(f"{name}.png"), name, (8, 8), caption) for name, caption in captions.items())
    concept = Concept(instance_prompt=r"a_dog, {one|two} \(b\) | c", class_prompt=r"any_dog, {x|y} \(b\) | c")
    material = Material(concept, pictures, pictures[:1])
    plain, other = (Draws([material], DataSettings(caption_generator=generator, **own), 3)
                    for own in ({}, {name: value}))
    for number in range(40):
        assert other.at(number).prompt == plain.at(number).prompt
        assert other.class_at(number).prompt == plain.class_at(number).prompt == concept.class_prompt
    idle = idle_paths(RunSettings(data=DataSettings(caption_generator=generator)))
    assert f"data.{name}" in idle
    assert f"data.{name}" not in idle_paths(RunSettings())
