"""Which sample sees what: fair, reproducible, independent of how the run was cut into pieces."""
import hashlib
import math
import time
from collections import Counter
from itertools import islice
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lib_sdtrain.data.concepts import Material, Picture
from lib_sdtrain.data.draws import Draws
from lib_sdtrain.data.interleave import fair_order
from lib_sdtrain.data.randomness import key, permutation, torch_generator
from lib_sdtrain.settings.run import Concept, DataSettings


def pictures(name, count, caption=None):
    return tuple(Picture(Path(f"{name}{i}.png"), f"{name}{i}", (8, 8), caption) for i in range(count))


def material(name, count, classes=0, **concept):
    concept = Concept(name=name, instance_prompt=f"a {name}", class_prompt="a thing" if classes else "", **concept)
    return Material(concept, pictures(name, count), pictures(f"class-{name}", classes))


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=8))
def test_after_any_number_of_samples_each_concept_is_within_one_of_its_share(weights):
    counts, total = [0] * len(weights), sum(weights)
    for sample, chosen in enumerate(islice(fair_order(weights), 500), 1):
        counts[chosen] += 1
        gaps = [abs(c - sample * w / total) for c, w in zip(counts, weights, strict=True)]
        assert max(gaps) < 1 + 1e-6


def test_every_picture_is_seen_once_before_any_is_seen_again():
    draws = Draws([material("a", 5), material("b", 3, weight=2.0)], DataSettings(), seed=1)
    seen = [draws.at(n).picture.sha256 for n in range(90)]
    for name, count in (("a", 5), ("b", 3)):
        own = [sha for sha in seen if sha.startswith(name)]
        for start in range(0, len(own) - count + 1, count):
            assert len(set(own[start:start + count])) == count
    assert Counter(sha[0] for sha in seen) == {"a": 30, "b": 60}


def test_order_differs_between_rounds_and_seeds():
    one, two = (Draws([material("a", 20)], DataSettings(), seed) for seed in (1, 2))
    rounds = [[one.at(20 * r + n).picture.sha256 for n in range(20)] for r in range(3)]
    assert len({tuple(r) for r in rounds}) == 3
    assert rounds[0] != [two.at(n).picture.sha256 for n in range(20)]


def test_a_draw_does_not_depend_on_what_was_asked_before():
    data = DataSettings(flip_p=0.5, random_crop=True, cache_latents="none", shuffle_caption=True, tag_dropout_rate=0.3)
    concepts = [material("a, b, c, d", 4, classes=3), material("e", 2)]
    straight, jumping = Draws(concepts, data, 7), Draws(concepts, data, 7)
    expected = [(straight.at(n), straight.class_at(n)) for n in range(50)]
    for n in (49, 3, 20, 0, 33):
        assert (jumping.at(n), jumping.class_at(n)) == expected[n]


def test_class_samples_go_with_concepts_that_keep_a_class():
    draws = Draws([material("a", 2, classes=3), material("b", 2)], DataSettings(), 0)
    for n in range(20):
        instance, kept = draws.at(n), draws.class_at(n)
        assert (kept is not None) == instance.picture.sha256.startswith("a")
        if kept:
            assert kept.is_class
            assert kept.prompt == "a thing"
            assert kept.picture.sha256.startswith("class-a")


def test_flips_and_dropped_captions_come_as_often_as_asked():
    data = DataSettings(flip_p=0.3, caption_dropout_rate=0.1)
    draws = [Draws([material("a", 7)], data, 5).at(n) for n in range(4000)]
    for count, p in ((sum(d.flip for d in draws), 0.3), (sum(d.prompt == "" for d in draws), 0.1)):
        assert abs(count - 4000 * p) < 4 * math.sqrt(4000 * p * (1 - p))


def test_keys_are_the_documented_function_and_streams_do_not_repeat():
    assert key(0, "noise", 0) == 9144587515262914129  # files made today must be made again tomorrow
    assert sorted(permutation(9, 3, "x")) == list(range(9))
    numbers = {torch_generator(s, p, i).initial_seed() for s in range(20) for p in ("a", "b") for i in range(50)}
    assert len(numbers) == 2000


def test_far_samples_are_found_without_those_before():
    draws = Draws([material("a", 7)], DataSettings(), 5)
    began = time.process_time()
    assert draws.at(30_000_000).index == 30_000_000
    assert time.process_time() - began < 1


def test_samples_are_those_of_earlier_versions():
    """A run that was begun with version 0.1 goes on with the same pictures, words, crops and flips."""
    varied = DataSettings(
        flip_p=0.5, random_crop=True, cache_latents="none", shuffle_caption=True, tag_dropout_rate=0.3, keep_tokens=1,
        caption_dropout_rate=0.1)
    words = Material(Concept(name="a", instance_prompt="a a", class_prompt="a thing"),
                     pictures("a", 5, "x, y, z, w, v"), pictures("class-a", 4))
    several = [words, material("b", 3, weight=2.0), material("c", 7, 2, weight=0.3)]
    found = []
    for data in (DataSettings(), varied):
        for materials in ([material("a", 5)], several):
            for seed in (0, 7):
                draws = Draws(materials, data, seed)
                both = (draw for n in range(300) for draw in (draws.at(n), draws.class_at(n)) if draw)
                found += [(d.index, d.picture.sha256, d.prompt, d.flip, d.crop, d.is_class) for d in both]
    expected = "a0bcd114ff5b7b481d044cc228ec3e24cd01534daabc9a453384f7c85794ef0b"
    assert hashlib.sha256(repr(found).encode()).hexdigest() == expected
