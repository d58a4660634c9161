"""Previews and class pictures by the WebUI's own txt2img, for a job that holds the queue lock.

What a training has learnt goes into the loaded model as a live merge does, and out of it again. The pictures are made
by the very code that answers the WebUI's API, so scripts, extensions, upscalers and infotexts all work.
"""
from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from fastapi import HTTPException
from modules import devices, script_callbacks, scripts, sd_hijack, sd_models, sd_samplers, sd_vae, shared
from modules.api.api import Api
from modules.api.models import StableDiffusionTxt2ImgProcessingAPI
from modules.textual_inversion.textual_inversion import create_embedding_from_data
from PIL import Image
from pydantic import ValidationError

from lib_sdtrain.errors import Cancelled, JobFailed, Problems, UserError
from lib_sdtrain.events import CancelToken
from lib_sdtrain.host import webui_live
from lib_sdtrain.host.protocol import LiveMerge
from lib_sdtrain.sample.embeddings import Embedding
from lib_sdtrain.train.studio import Body, Draw, Drawn, Weights

_PROGRESS = ("job", "job_no", "job_count", "processing_has_refined_job_count", "job_timestamp", "sampling_step",
             "sampling_steps", "textinfo", "time_start")  # fmt: skip
_DRAWN_BY = "preview.drawn_by"


class _Txt2Img(Api):
    """The WebUI's own txt2img, without its routes: the queue lock is held already."""

    def __init__(self) -> None:
        self.queue_lock = nullcontext()
        controls = scripts.scripts_txt2img.inputs[1:]  # the first is the list of scripts to choose one of
        self.default_script_arg_txt2img = [0, *(control.value for control in controls)]

    def check(self, body: Body) -> None:
        """Raise `UserError` for a body that it cannot draw."""
        unknown = sorted(body.keys() - StableDiffusionTxt2ImgProcessingAPI.__fields__.keys())
        if unknown:
            raise UserError(f"the WebUI's API has no field {unknown[0]!r}")
        try:
            request, runner = StableDiffusionTxt2ImgProcessingAPI(**body), scripts.scripts_txt2img
            self.apply_infotext(request, "txt2img", script_runner=runner, mentioned_script_args={})
            self.init_script_args(request, self.default_script_arg_txt2img,
                                  *self.get_selectable_script(request.script_name, runner), runner)  # fmt: skip
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(f"{first['loc'][0]}: {first['msg']}") from error
        except HTTPException as error:
            raise UserError(str(error.detail)) from error
        except ValueError as error:  # of an infotext whose numbers are none
            raise UserError(str(error)) from error
        sampler = request.sampler_name or request.sampler_index
        taken, _ = sd_samplers.get_sampler_and_scheduler(sampler, request.scheduler)  # its first one for an unknown
        if sampler != taken and not sampler.startswith(f"{taken} "):
            raise UserError(f"the WebUI has no sampler {sampler!r}")
        known = {*shared.latent_upscale_modes, *(upscaler.name for upscaler in shared.sd_upscalers)}
        if request.enable_hr and request.hr_upscaler not in known | {None}:
            raise UserError(f"the WebUI has no upscaler {request.hr_upscaler!r}")

    def draw(self, body: Body) -> list[Drawn]:
        """The pictures of a body. Raises `JobFailed` when the WebUI refuses it, or cannot draw with these weights."""
        request = StableDiffusionTxt2ImgProcessingAPI(**body)
        try:
            with _options_kept(request):
                answer = self.text2imgapi(request)
        except (HTTPException, devices.NansException, torch.cuda.OutOfMemoryError) as error:
            why = error.detail if isinstance(error, HTTPException) else error
            raise JobFailed(f"the WebUI does not draw it: {why}", where="preview") from error
        texts = json.loads(answer.info)["infotexts"]
        return [Drawn(_opened(image), text) for image, text in zip(answer.images, texts, strict=False)]


class WebuiStudio:
    """The WebUI's txt2img on its loaded model, as `Studio`."""

    def check(self, checkpoint: Path, bodies: Mapping[str, Body], problems: Problems) -> None:
        """See `Studio.check`."""
        loaded = _loaded_file()
        if loaded != checkpoint:
            fix = f"choose {checkpoint.name} at the top of the page, or have them drawn by sdtrain"
            problems.add(f"the WebUI has {loaded.name if loaded else 'no model'} loaded, not the checkpoint that is "
                         f"trained ({checkpoint.name})", where=_DRAWN_BY, fix=fix)  # fmt: skip
        if not scripts.scripts_txt2img.inputs:
            problems.add("the WebUI has no page to take the settings of scripts from", where=_DRAWN_BY,
                         fix="start it without --nowebui")  # fmt: skip
            return
        for where, body in bodies.items():
            try:
                _Txt2Img().check(body)
            except UserError as error:
                problems.absorb(error, lambda _, where=where: where)

    @contextmanager
    def showing(self, checkpoint: Path, weights: Weights | None) -> Iterator[Draw]:
        """See `Studio.showing`."""
        if _loaded_file() != checkpoint:
            raise UserError(f"{checkpoint.name} is no longer the WebUI's loaded checkpoint", where=_DRAWN_BY,
                            fix="choose it at the top of the page")  # fmt: skip
        model, merge = sd_models.model_data.get_sd_model(), webui_live.live()
        webui_live.revert()
        info = model.sd_checkpoint_info  # a live merge has lent the model another
        with ExitStack() as stack:
            stack.callback(_back, info, merge)
            sd_models.send_model_to_device(model)
            if weights is not None:
                tensors = _Tensors(weights)
                learnt = LiveMerge(checkpoint, weights.name, "", "", lambda: nullcontext(tensors))
                webui_live.apply(learnt, tensors, None, lambda done, total: None)
            words = weights.embeddings if weights is not None else ()
            pipeline = _Txt2Img()

            def draw(body: Body, token: CancelToken) -> list[Drawn]:
                # its own checkpoint: neither an infotext's, nor one that a person has chosen meanwhile and that waits
                settings = {**(body.get("override_settings") or {}), "sd_model_checkpoint": info.title}
                asked = {**body, "override_settings": settings, "send_images": True, "save_images": False}
                _load(info)
                webui_live.again()
                with _progress_kept(), _words(words), _stopped_by(token):
                    return pipeline.draw(asked)

            yield draw


def _loaded_file() -> Path | None:
    model = sd_models.model_data.sd_model
    chosen = sd_models.checkpoint_aliases.get(shared.opts.sd_model_checkpoint)  # is loaded when it is first needed
    info = model.sd_checkpoint_info if model is not None else chosen
    return Path(info.filename) if info else None


def _load(info: Any) -> None:
    """The checkpoint back where a refiner has taken its place; nothing happens otherwise."""
    with sd_models.SkipWritingToConfig():
        sd_models.reload_model_weights(info=info)


def _back(info: Any, merge: LiveMerge | None) -> None:
    """The model with its own weights, or the live merge that it showed before, and out of the way again."""
    _load(info)
    webui_live.revert()
    if merge is not None:
        setattr(shared, webui_live.WANTED, merge)
        webui_live.again()
    sd_models.send_model_to_cpu(sd_models.model_data.sd_model)


class _Tensors:
    """What a training has learnt, as a live merge gives it."""

    def __init__(self, weights: Weights) -> None:
        self._tensors = weights.tensors

    def keys(self) -> list[str]:
        """What is not the checkpoint's own."""
        return list(self._tensors)

    def tensor(self, key: str) -> torch.Tensor:
        """As a file would hold it."""
        return self._tensors[key]


@contextmanager
def _words(embeddings: Sequence[Embedding]) -> Iterator[None]:
    """While open, prompts may name the embeddings; those of the same name are back afterwards."""
    known, model = sd_hijack.model_hijack.embedding_db, sd_models.model_data.sd_model
    known.load_textual_inversion_embeddings()  # what is new in the folder now: reading it later would forget ours
    before = {embedding.name: known.word_embeddings.get(embedding.name) for embedding in embeddings}
    try:
        for embedding in embeddings:
            data = embedding.parts if len(embedding.parts) > 1 else {"*": next(iter(embedding.parts.values()))}
            known.register_embedding(create_embedding_from_data(data, embedding.name), model)
        yield
    finally:
        for name, old in before.items():
            known.register_embedding_by_name(None, model, name)
            if old is not None:
                known.register_embedding(old, model)


@contextmanager
def _progress_kept() -> Iterator[None]:
    """The WebUI's progress is the run's again afterwards."""
    before = {name: getattr(shared.state, name) for name in _PROGRESS}
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(shared.state, name, value)


@contextmanager
def _options_kept(request: Any) -> Iterator[None]:
    """The settings that a request overrides, itself or by its infotext, are as before afterwards, and so is the VAE.

    The WebUI brings back only those that its file names, and none where the request forbids it. Pictures are handed
    over without loss.
    """
    before = dict(shared.opts.data)
    try:
        shared.opts.data["samples_format"] = "png"
        yield
    finally:
        now = shared.opts.data
        for name in {"samples_format", *(request.override_settings or {}), *(now.keys() - before.keys())}:
            now.pop(name, None)
            if name in before:
                now[name] = before[name]
        sd_vae.reload_vae_weights(sd_models.model_data.sd_model)  # nothing where it is the same


@contextmanager
def _stopped_by(token: CancelToken) -> Iterator[None]:
    """Whoever stops the run stops the picture, and the other way round. Raises `Cancelled`: it is not finished then."""

    def look(params: Any) -> None:
        del params
        if token.stopping:
            shared.state.interrupt()

    token.check()
    _check_interrupted(token)  # the WebUI forgets it when it begins a picture
    script_callbacks.on_cfg_denoiser(look)
    try:
        yield
    finally:
        script_callbacks.remove_callbacks_for_function(look)
    _check_interrupted(token)


def _check_interrupted(token: CancelToken) -> None:
    if shared.state.interrupted or shared.state.stopping_generation:
        token.stop_and_save()
        raise Cancelled


def _opened(image: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(image)))
