"""A subject's own pictures as its class pictures: the DreamBooth guide without regularisation pictures."""
from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lib_sdtrain import train
from lib_sdtrain.api.service import Outlook
from lib_sdtrain.data import latents as latents_module
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, Event, Finished, Notice, Phase, Step, Stopped, result_of
from lib_sdtrain.settings.layers import Layer, to_plain
from lib_sdtrain.train.data_plan import draws_of
from lib_sdtrain.train.forecast import forecast, forecast_stages, forecast_text
from lib_sdtrain.train.plan import Plan, make_plan
from lib_sdtrain.train.resume import resume
from lib_sdtrain.train.starting import resolve_run
from lib_sdtrain.ui.train.plan_view import plan_html
from tests.train.runs import finish, of_kind, run_settings

CLASS = "a photo of a dog"
NOTICE = "the class pictures are the subject's own"


@pytest.fixture
def folder(picture_folder):
    """Four pictures, one with a caption."""
    made = picture_folder("subject", 4)
    (made / "2.txt").write_text("sks dog, grass")
    return made


def own(checkpoint: Path, folder: Path, concept: dict | None = None, **changes):
    """A run on a subject whose pictures are its class."""
    said = {"name": "sks", "instance_dir": str(folder), "instance_prompt": "a photo of sks dog", "class_prompt": CLASS,
            "class_from": "own", **(concept or {})}  # fmt: skip
    return run_settings(checkpoint, folder, **{"data__concepts": [said], **changes})


def planned(settings, outputs: Path, told: list[Event] | None = None) -> Plan:
    """The plan; what is told on the way goes into `told`."""
    events = make_plan(settings, outputs, "cpu", CancelToken())
    return result_of(events, (told if told is not None else []).append)


def result(seen: list[Event]) -> bytes:
    assert isinstance(seen[-1], Finished), seen[-1]
    return Path(seen[-1].result["checkpoint"]).read_bytes()


def test_the_class_half_says_the_class_prompt_whatever_the_captions(tiny_checkpoint, folder, tmp_path):
    draws = draws_of(planned(own(tiny_checkpoint, folder), tmp_path))
    samples = range(40)
    assert {draws.class_at(index).prompt for index in samples} == {CLASS}
    assert {draws.at(index).prompt for index in samples} == {"a photo of sks dog", "sks dog, grass"}
    assert {draws.class_at(index).picture.path for index in samples} == set(folder.glob("*.png"))
    asked = own(tiny_checkpoint, folder, {"class_prompt": "a dog, [filewords]"})
    said = {draws_of(planned(asked, tmp_path)).class_at(index).prompt for index in samples}
    assert said == {"a dog,", "a dog, sks dog, grass"}


def test_both_halves_are_drawn_and_mirrored_independently(tiny_checkpoint, folder, tmp_path):
    draws = draws_of(planned(own(tiny_checkpoint, folder, data__flip_p=0.5), tmp_path))
    pairs = [(draws.at(index), draws.class_at(index)) for index in range(1000)]
    same_side = sum(one.flip == other.flip for one, other in pairs)
    same_picture = sum(one.picture.path == other.picture.path for one, other in pairs)
    assert abs(same_side - 500) < 80  # five standard deviations
    assert abs(same_picture - 250) < 70
    ordinary = run_settings(tiny_checkpoint, folder, tmp_path / "class", data__flip_p=0.5)
    other = draws_of(planned(ordinary, tmp_path))
    assert [other.at(index).flip for index in range(100)] == [one.flip for one, _ in pairs[:100]]


def test_only_what_is_trained_on_stands_for_the_class(tiny_checkpoint, picture_folder, tmp_path):
    settings = own(tiny_checkpoint, picture_folder("ten", 10), {"num_class_images": 3}, validation__fraction=0.2,
                   data__filter="name < 7")  # fmt: skip
    (material,) = planned(settings, tmp_path).materials
    assert len(material.pictures) == 6  # of seven, one is held out
    assert [picture.path for picture in material.class_pictures] == [picture.path for picture in material.pictures]


@pytest.mark.parametrize("class_dir", ["", "{folder}", "{folder}/../subject"])
def test_nothing_is_made_among_the_subjects_pictures(tiny_checkpoint, folder, tmp_path, class_dir):
    concept = {"num_class_images": 50, "class_dir": class_dir.format(folder=folder)}
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    seen = finish(train(own(tiny_checkpoint, folder, concept, train__length=1), run_dir=tmp_path / "run"))
    assert isinstance(seen[-1], Finished)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not (tmp_path / "class-pictures").exists()
    assert "making class pictures" not in {phase.name for phase in of_kind(seen, Phase)}
    assert [notice.text for notice in of_kind(seen, Notice) if NOTICE in notice.text]


def test_the_same_folder_is_a_mistake_unless_it_is_meant(tiny_checkpoint, folder, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(folder)
    for class_dir in (folder, link):
        said = {"class_from": "folder", "class_dir": str(class_dir)}
        with pytest.raises(UserError, match="folder of the subject's own pictures") as caught:
            planned(own(tiny_checkpoint, folder, said), tmp_path)
        assert "set class_from to own" in caught.value.problems[0].fix
    told: list[Event] = []
    plan = planned(own(tiny_checkpoint, folder, {"class_dir": str(link)}), tmp_path, told)
    assert len(plan.materials[0].class_pictures) == 4
    assert [event.where for event in of_kind(told, Notice) if NOTICE in event.text] == ["data.concepts.0.class_from"]
    (tmp_path / "others").mkdir()
    with pytest.raises(UserError, match="a folder of others is given"):
        planned(own(tiny_checkpoint, folder, {"class_dir": str(tmp_path / "others")}), tmp_path)
    with pytest.raises(UserError, match=r"class_from: .*there are no words for it"):
        planned(own(tiny_checkpoint, folder, {"class_prompt": ""}), tmp_path)


def test_class_pictures_cannot_lie_among_a_subjects_own(tiny_checkpoint, folder, tmp_path, picture_folder):
    """They are found with the subject's, and would be trained on as the subject from the next start on."""
    second = {"name": "xyz", "instance_dir": str(picture_folder("second", 2)), "instance_prompt": "a photo of xyz cat"}
    before = sorted(tmp_path.rglob("*.png"))

    def drawn_into(place, wanted=100):
        first = {"name": "sks", "instance_dir": str(folder), "instance_prompt": "a photo of sks dog",
                 "class_prompt": CLASS, "class_dir": str(place), "num_class_images": wanted}  # fmt: skip
        return planned(run_settings(tiny_checkpoint, folder, data__concepts=[first, second]), tmp_path)

    another = Path(second["instance_dir"])
    for place in (folder / "class", folder / "deep" / "class", another / "class", another):
        with pytest.raises(UserError, match="all of whose pictures are a subject's") as caught:
            drawn_into(place)
        assert [problem.where for problem in caught.value.problems] == ["data.concepts.0.class_dir"]
    with pytest.raises(UserError, match=r"the subject's pictures in .*second lie in it"):
        drawn_into(folder.parent)
    assert sorted(tmp_path.rglob("*.png")) == before
    assert len(drawn_into(another, wanted=2).materials[0].class_pictures) == 2  # a class is trained too; none are made
    beside = tmp_path / "subject-class"
    assert drawn_into(beside).class_folders == (beside, None)


@pytest.mark.parametrize("more", [{}, {"data__bucketing": "least_waste"}])
def test_a_picture_is_encoded_once_for_both(tiny_checkpoint, folder, tmp_path, monkeypatch, more):
    Image.linear_gradient("L").resize((64, 128)).save(folder / "upright.png")
    decoded: list[tuple[str, bool]] = []
    load = latents_module.load_pixels
    monkeypatch.setattr(
        latents_module, "load_pixels", lambda draw, data: decoded.append((draw.picture.path.name, draw.flip))
        or load(draw, data),
    )  # fmt: skip
    kept = own(tiny_checkpoint, folder, data__flip_p=0.5, train__length=10, **more)
    cached = result(finish(train(kept, run_dir=tmp_path / "a" / "run")))
    assert len(decoded) == len(set(decoded)) == 10  # five pictures, plain and mirrored
    uncached = own(tiny_checkpoint, folder, data__flip_p=0.5, train__length=10, data__cache_latents="none", **more)
    assert result(finish(train(uncached, run_dir=tmp_path / "b" / "run"))) == cached


def test_a_stopped_run_goes_on_bit_for_bit(tiny_checkpoint, folder, tmp_path):
    settings = own(tiny_checkpoint, folder, data__flip_p=0.5, train__length=5, train__scale_lr="pictures")
    straight = result(finish(train(settings, run_dir=tmp_path / "straight")))
    token = CancelToken()
    seen = finish(train(settings, token, run_dir=tmp_path / "cut"), token, stop_at=2)
    assert isinstance(seen[-1], Stopped)
    assert result(finish(resume(tmp_path / "cut"))) == straight
    ordinary = run_settings(tiny_checkpoint, folder, data__flip_p=0.5, train__length=5)
    assert result(finish(train(ordinary, run_dir=tmp_path / "alone"))) != straight


def test_the_rate_is_told_and_follows_the_pictures_when_a_run_goes_on(tiny_checkpoint, folder, tmp_path):
    settings = own(tiny_checkpoint, folder, train__learning_rate=1e-5, train__text_encoder_lr=2e-5, train__length=4,
                   train__scale_lr="pictures")  # fmt: skip
    document = forecast(planned(settings, tmp_path))
    assert document["learning_rates"] == pytest.approx({"unet": 4e-5, "text_encoder": 8e-5})
    assert document["concepts"][0]["class_images"] == 4
    assert "<th>Learning rate</th><td>unet 4e-05, text encoder 8e-05</td>" in plan_html(Outlook(document, (), {}))
    token = CancelToken()
    seen = finish(train(settings, token, run_dir=tmp_path / "run"), token, stop_at=2)
    assert [step.lr for step in of_kind(seen, Step)] == pytest.approx([4e-5] * 2)
    Image.radial_gradient("L").resize((80, 64)).save(folder / "new.png")
    seen = finish(resume(tmp_path / "run"))
    assert [step.lr for step in of_kind(seen, Step)] == pytest.approx([5e-5] * 2)
    told = [notice.text for notice in of_kind(seen, Notice)]
    assert "changed: sks, pictures: 1 added" in told
    assert "changed: sks, class pictures: 1 added" in told


def test_the_rates_of_a_chain_are_those_of_each_stages_pictures(tiny_checkpoint, folder, tmp_path):
    from lib_sdtrain.train.stages import plan_stages

    stages = [{"data": {"filter": "name < 2"}}]
    values = to_plain(own(tiny_checkpoint, folder, train__scale_lr="pictures", train__learning_rate=1e-5))
    resolved = resolve_run([Layer("test", {**values, "stages": stages})], "cpu")
    plans = result_of(plan_stages(resolved.settings, tmp_path, "cpu", CancelToken()), lambda event: None)
    document = result_of(forecast_stages(plans), lambda event: None)
    text = forecast_text(document, resolved)
    assert text.index("stage 1") < text.index("learning rate 4e-05") < text.index("stage 2")
    assert text.index("stage 2") < text.index("learning rate 2e-05")


def test_latents_of_both_take_the_memory_of_one(tiny_checkpoint, folder, picture_folder, tmp_path):
    alone = forecast(planned(run_settings(tiny_checkpoint, folder), tmp_path))["memory"]
    both = forecast(planned(own(tiny_checkpoint, folder), tmp_path))["memory"]
    others = {"class_from": "folder", "class_dir": str(picture_folder("class", 3)), "num_class_images": 3}
    more = forecast(planned(own(tiny_checkpoint, folder, others), tmp_path))["memory"]
    assert both["cached"] == alone["cached"] > 0
    assert more["cached"] == alone["cached"] * 7 / 4
