"""What is encoded before training."""
from __future__ import annotations

import pytest

from lib_sdtrain.events import CancelToken, result_of
from lib_sdtrain.train.data_plan import bucket_table, draws_of
from lib_sdtrain.train.encoding import draws_to_encode
from lib_sdtrain.train.memory.parts import cached_bytes
from lib_sdtrain.train.plan import make_plan
from lib_sdtrain.train.survey import make_survey
from tests.train.runs import run_settings


@pytest.fixture
def encoded(tiny_checkpoint, picture_folder, tmp_path):
    """(first sample, steps, settings) -> what is encoded, by picture and mirroring, and what those steps then see."""
    subject = picture_folder("subject", 3)
    concept = {"name": "sks", "instance_dir": str(subject), "instance_prompt": "a photo of sks dog",
               "class_dir": str(picture_folder("class", 7)), "class_prompt": "a photo of a dog", "num_class_images": 7}

    def encode(first, steps, **changes):
        settings = run_settings(
            tiny_checkpoint, subject, data__concepts=[concept], train__length=steps, **changes
        )
        plan = result_of(make_plan(settings, tmp_path, "cpu", CancelToken()), lambda event: None)
        draws = draws_of(plan)
        trained = (draw for index in range(first, first + steps) for draw in (draws.at(index), draws.class_at(index)))
        return [{(draw.picture.path, draw.flip) for draw in some}
                for some in (draws_to_encode(draws, plan, first, steps), trained)]

    return encode


@pytest.mark.parametrize("first", [0, 5])
@pytest.mark.parametrize("steps", [1, 3, 4])
def test_a_short_run_encodes_what_it_sees_and_no_class_picture_more(encoded, first, steps):
    made, seen = encoded(first, steps)
    assert made == seen
    assert len(made) < 10


@pytest.mark.parametrize(("steps", "flip_p", "forms"), [(5, 0.0, 10), (50, 0.0, 10), (10, 0.5, 20), (50, 0.5, 20)])
def test_a_long_run_encodes_every_picture_in_each_form(encoded, steps, flip_p, forms):
    made, seen = encoded(0, steps, data__flip_p=flip_p)
    assert len(made) == forms
    assert made >= seen


@pytest.mark.parametrize(("steps", "forms"), [(1, 1), (2, 2), (3, 3), (7, 3)])
def test_without_a_class_a_run_sees_one_picture_a_sample(tiny_checkpoint, picture_folder, tmp_path, steps, forms):
    settings = run_settings(tiny_checkpoint, picture_folder("subject", 3), train__length=steps)
    plan = result_of(make_plan(settings, tmp_path, "cpu", CancelToken()), lambda event: None)
    assert len({draw.picture.path for draw in draws_to_encode(draws_of(plan), plan, 0, steps)}) == forms


def test_a_run_that_sees_less_than_there_are_forms_makes_no_other(encoded):
    made, seen = encoded(0, 9, data__flip_p=0.5)
    assert made == seen
    assert len(made) < 20


@pytest.fixture
def folders(picture_folder, tmp_path):
    """EveryDream's folders: two pictures as data.flip_p says, three with a chance of their own in flip_p.txt."""
    for name, count in (("data", 2), ("own", 3)):
        picture_folder(name, count)
    (tmp_path / "own").rename(tmp_path / "data" / "own")
    return tmp_path / "data"


@pytest.mark.parametrize(("flip_p", "of_folder", "forms"), [
    (0.0, "0.5", 2 + 6), (0.5, "0", 4 + 3), (0.5, "1", 4 + 3), (1.0, "0.25", 2 + 6), (0.0, "1.0", 2 + 3),
    (1.0, "0", 2 + 3),
])  # fmt: skip
def test_a_folders_own_chance_to_mirror_is_known_to_the_caches(
    tiny_checkpoint, folders, tmp_path, flip_p, of_folder, forms
):
    (folders / "own" / "flip_p.txt").write_text(of_folder)
    concept = {"instance_dir": str(folders), "instance_prompt": "a photo of sks dog", "weighting": "everydream"}
    settings = run_settings(tiny_checkpoint, folders, data__concepts=[concept], data__flip_p=flip_p, train__length=100)
    survey = result_of(make_survey(settings, tmp_path, "cpu", CancelToken()), lambda event: None)
    plan, draws = survey.plan, draws_of(survey.plan)
    made = [(draw.picture.path, draw.flip) for draw in draws_to_encode(draws, plan, 0, 100)]
    assert len(made) == forms
    assert set(made) == {(draw.picture.path, draw.flip) for draw in map(draws.at, range(100))}
    values = forms * (64 // 8) ** 2 * 2 * 4
    assert cached_bytes(plan, bucket_table(plan.materials, settings.data)) == values * 4
    assert survey.cache_bytes() == values * 4
