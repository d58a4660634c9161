"""Previews and class pictures that somebody else draws, with the weights of the training: the WebUI, say."""
from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image

from lib_sdtrain.cli.main import main
from lib_sdtrain.errors import Cancelled, JobFailed, UserError
from lib_sdtrain.events import CancelToken, Finished, Notice, Preview, Stopped
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.settings.layers import Layer, resolve
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.train.loop import train
from lib_sdtrain.train.preview_requests import preview_bodies
from lib_sdtrain.train.resume import resume
from lib_sdtrain.train.studio import Drawn
from tests.train.runs import finish, of_kind, run_settings

BY_WEBUI = {"preview__drawn_by": "webui", "preview__prompts": ["a ball", "a cup"], "train__length": 2}
INFOTEXT = "a cat\nNegative prompt: bad\nSteps: 7, Sampler: Secret, CFG scale: 4, {seed}Size: 96x64, ADetailer model: x"


class Fake:
    """Draws grey pictures and remembers what it was shown."""

    def __init__(self, fails: BaseException | None = None, refuses: str = "", first: int = 0) -> None:
        self.fails, self.refuses, self.first = fails, refuses, first  # the first few pictures never fail
        self.shown, self.bodies, self.open = [], [], False

    def check(self, checkpoint, bodies, problems):
        if self.refuses:
            problems.add(self.refuses, where=next(iter(bodies)))

    @contextmanager
    def showing(self, checkpoint, weights):
        self.shown.append(weights)
        self.open = True
        try:
            yield self._draw
        finally:
            self.open = False

    def _draw(self, body, token):
        self.bodies.append(dict(body))
        if isinstance(self.fails, Cancelled):
            token.stop_and_save()
        if self.fails and len(self.bodies) > self.first:
            raise self.fails
        return [Drawn(Image.new("RGB", (64, 64), (len(self.bodies), 0, 0)), f"{body['prompt']}\nSteps: 20, Seed: 1")]


def watched(events, studio: Fake):
    """The events; none may come while the other model shows the training's weights."""
    seen = []
    for event in events:
        assert not studio.open, event
        seen.append(event)
    return seen


@pytest.fixture
def folders(picture_folder):
    return picture_folder("subject", 2), None


@pytest.fixture
def settings(tiny_checkpoint, folders):
    return run_settings(tiny_checkpoint, *folders, **BY_WEBUI, save__dtype="fp16")


def test_the_weights_that_are_shown_are_those_of_the_saved_checkpoint(settings, tmp_path):
    studio = Fake()
    seen = watched(train(settings, run_dir=tmp_path / "run", studio=studio), studio)
    assert isinstance(seen[-1], Finished)
    first, last = studio.shown
    saved, parent = open_checkpoint(seen[-1].result["checkpoint"]), open_checkpoint(settings.model.checkpoint)
    assert (first.name, last.name) == ("sks-000000", "sks-000002")
    trained = {key for key in saved.file_keys if not key.startswith("first_stage_model.")}
    assert last.tensors.keys() <= trained
    assert {key.partition(".")[0] for key in last.tensors} == {"model", "cond_stage_model"}
    changed = 0
    for key, tensor in last.tensors.items():
        assert torch.equal(tensor, saved.tensor(key)), key
        assert torch.equal(first.tensors[key], parent.tensor(key).to(tensor.dtype)), key
        changed += not torch.equal(tensor, first.tensors[key])
    assert changed > 100


def test_pictures_are_saved_as_previews_are(settings, tmp_path):
    studio = Fake()
    seen = watched(train(settings, run_dir=tmp_path / "run", studio=studio), studio)
    previews = of_kind(seen, Preview)
    assert [(one.step, one.index) for one in previews] == [(0, 0), (0, 1), (2, 0), (2, 1)]
    assert previews[3].infotext == "a cup\nSteps: 20, Seed: 1"
    picture = Image.open(tmp_path / "run" / previews[3].file)
    assert picture.info["parameters"] == previews[3].infotext
    assert picture.getpixel((0, 0)) == (4, 0, 0)
    assert studio.bodies[1] == {
        "prompt": "a cup", "steps": 20, "sampler_name": "Euler a", "cfg_scale": 7.0, "width": 64, "height": 64,
        "seed": 1,
        "override_settings": {"CLIP_stop_at_last_layers": 1, "randn_source": "CPU"},
    }  # fmt: skip


def test_the_training_itself_does_not_notice(settings, tiny_checkpoint, folders, tmp_path):
    plain = run_settings(tiny_checkpoint, *folders, train__length=2, save__dtype="fp16")
    files = [finish(train(plain, run_dir=tmp_path / "a"))[-1].result["checkpoint"],
             finish(train(settings, run_dir=tmp_path / "b", studio=Fake()))[-1].result["checkpoint"]]  # fmt: skip
    assert Path(files[0]).read_bytes() == Path(files[1]).read_bytes()


def test_a_lora_is_shown_as_if_baked_in(tiny_checkpoint, folders, tmp_path):
    settings = run_settings(
        tiny_checkpoint, *folders, **BY_WEBUI, method__kind="lora", method__conv_rank=2, save__dtype="fp32",
        train__learning_rate=0.05,
    )  # fmt: skip
    studio = Fake()
    lora = watched(train(settings, run_dir=tmp_path / "run", studio=studio), studio)[-1].result["checkpoint"]
    out = tmp_path / "baked.safetensors"
    assert main(["lora-bake", str(tiny_checkpoint), f"{lora}:1", "--out", str(out), "--dtype", "fp32"]) == 0
    baked, parent = open_checkpoint(out), open_checkpoint(tiny_checkpoint)
    shown = studio.shown[-1].tensors
    different = {key for key in parent.file_keys if not torch.equal(baked.tensor(key), parent.tensor(key).float())}
    assert different == shown.keys()
    for key, tensor in shown.items():
        assert torch.allclose(tensor.float(), baked.tensor(key), atol=1e-6), key


def test_an_embedding_is_handed_over_as_it_is_saved(tiny_checkpoint, folders, tmp_path):
    settings = run_settings(
        tiny_checkpoint, *folders, **BY_WEBUI, method__kind="embedding", embedding__name="sks",
        embedding__vectors=2,
    )  # fmt: skip
    studio = Fake()
    finish(train(settings, run_dir=tmp_path / "run", studio=studio))
    first, last = studio.shown
    assert not last.tensors
    assert [embedding.name for embedding in last.embeddings] == ["sks"]
    before, after = first.embeddings[0].parts[""], last.embeddings[0].parts[""]
    assert after.shape == (2, before.shape[1])
    assert not torch.equal(before, after)


@pytest.mark.parametrize("key", ["preview.drawn_by", "data.class_drawn_by"])
def test_where_there_is_no_webui_there_is_one_clear_message(tiny_checkpoint, folders, tmp_path, key):
    settings = run_settings(tiny_checkpoint, *folders, **{key.replace(".", "__"): "webui"})
    with pytest.raises(UserError, match=f"{key}: there is no WebUI here") as caught:
        finish(train(settings, run_dir=tmp_path / "run"))
    assert len(caught.value.problems) == 1
    assert not (tmp_path / "run").exists()


def test_what_the_studio_cannot_draw_is_said_before_anything_is_made(settings, tmp_path):
    with pytest.raises(UserError, match=r"preview\.prompts\.0: no such sampler"):
        finish(train(settings, run_dir=tmp_path / "run", studio=Fake(refuses="no such sampler")))
    assert not (tmp_path / "run").exists()


def test_another_loaded_checkpoint_costs_previews_not_the_training(settings, tmp_path):
    studio = Fake(fails=UserError("tiny is no longer loaded"))
    seen = watched(train(settings, run_dir=tmp_path / "run", studio=studio), studio)
    assert isinstance(seen[-1], Finished)
    said = [str(one) for one in of_kind(seen, Notice) if "previews" in one.text]
    assert said == [f"no previews at step {step}: tiny is no longer loaded" for step in (0, 2)]


def test_a_preview_that_cannot_be_drawn_later_costs_no_training(settings, tmp_path):
    studio = Fake(fails=JobFailed("refused"), first=2)  # both of step 0
    seen = watched(train(settings, run_dir=tmp_path / "run", studio=studio), studio)
    assert isinstance(seen[-1], Finished)
    assert [str(one) for one in of_kind(seen, Notice) if "previews" in one.text] == ["no previews at step 2: refused"]


@pytest.mark.parametrize("error", [JobFailed("refused"), RuntimeError("out of memory")])
def test_what_fails_leaves_the_other_model_alone(settings, tmp_path, error):
    studio = Fake(fails=error)
    with pytest.raises(type(error)):
        watched(train(settings, run_dir=tmp_path / "run", studio=studio), studio)
    assert not studio.open


def test_interrupting_a_preview_stops_the_run(settings, tmp_path):
    token, studio = CancelToken(), Fake(fails=Cancelled())
    seen = watched(train(settings, token, run_dir=tmp_path / "run", studio=studio), studio)
    assert isinstance(seen[-1], Stopped)
    assert not of_kind(seen, Preview)


def test_previews_of_the_step_that_was_stopped_at_come_later(settings, tmp_path):
    studio, token = Fake(), CancelToken()
    with_every = {"preview.every": 1}
    values = resolve(RunSettings, [Layer("run", {**_plain(settings), **with_every, "train.length": 3})]).settings
    finish(train(values, token, run_dir=tmp_path / "run", studio=studio), token, stop_at=1)
    assert [weights.name for weights in studio.shown] == ["sks-000000"]
    finish(resume(tmp_path / "run", studio=studio))
    assert [weights.name for weights in studio.shown[1:]] == ["sks-000001", "sks-000002", "sks-000003"]


def _plain(settings):
    from lib_sdtrain.settings.layers import to_plain

    return to_plain(settings)


def test_class_pictures_show_the_checkpoint_as_it_is(tiny_checkpoint, picture_folder, tmp_path):
    made = tmp_path / "class"
    subject, studio = picture_folder("s", 2), Fake()
    settings = run_settings(tiny_checkpoint, subject, made, data__class_drawn_by="webui", train__length=1)
    watched(train(settings, run_dir=tmp_path / "run", studio=studio), studio)
    assert studio.shown == [None] * 3
    assert len(list(made.glob("class-*.png"))) == 3
    assert len({body["seed"] for body in studio.bodies}) == 3
    expected = {"prompt": "a photo of a dog", "sampler_name": "DDIM", "cfg_scale": 10.0, "width": 64, "height": 64,
                "override_settings": {"CLIP_stop_at_last_layers": 1}}  # fmt: skip
    assert {name: studio.bodies[0][name] for name in expected} == expected


def bodies(*prompts):
    values = {"preview.prompts": list(prompts), "preview.drawn_by": "webui", "model.clip_skip": 2, "train.seed": 10}
    return list(preview_bodies(resolve(RunSettings, [Layer("test", values)]).settings, (128, 192)).values())


def test_what_an_entry_says_is_left_to_the_webui():
    with_seed, without = INFOTEXT.format(seed="Seed: 99, "), INFOTEXT.format(seed="")
    script = {"prompt": "x", "sampler_index": "Heun", "alwayson_scripts": {"ADetailer": {"args": [True]}},
              "override_settings": {"CLIP_stop_at_last_layers": 4, "sd_vae": "y.pt"}}  # fmt: skip
    assert bodies(with_seed, without, script) == [
        {"infotext": with_seed}, {"infotext": without, "seed": 11},
        {"steps": 20, "cfg_scale": 7.0, "width": 128, "height": 192, "seed": 12, **script,
         "override_settings": {"CLIP_stop_at_last_layers": 4, "randn_source": "CPU", "sd_vae": "y.pt"}},
    ]  # fmt: skip
