"""A request to pictures: first pass, hires pass, decoding, one batch after the other.

    for picture in generate(model, request, token): ...

The model's modules may be in training: they are put into evaluation mode and back. No global random state is touched.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from lib_sdtrain.errors import JobFailed
from lib_sdtrain.events import CancelToken, Notice
from lib_sdtrain.model.build import LoadedModel
from lib_sdtrain.sample.check import check_request
from lib_sdtrain.sample.composition import without_comments
from lib_sdtrain.sample.embeddings import Embedding, Library, load_library
from lib_sdtrain.sample.hires import sizes, to_picture
from lib_sdtrain.sample.images import Picture
from lib_sdtrain.sample.infotext import Facts
from lib_sdtrain.sample.infotext_write import write_infotext
from lib_sdtrain.sample.networks import Networks
from lib_sdtrain.sample.passes import Batch, Passes, run_passes
from lib_sdtrain.sample.pictures import Pictures, tileable, tiles
from lib_sdtrain.sample.seeds import seeds_of
from lib_sdtrain.sample.text_encoding import EncodingCache
from lib_sdtrain.sample.unet import resized_after_upsampling
from lib_sdtrain.settings.sample import SampleRequest

Progress = Callable[[int, int], None]
"""progress(done, total) in evaluations of the UNet."""


@dataclass(frozen=True)
class Surroundings:
    """What a request may refer to beside the model, and what its infotext tells of the model.

    `lora_dirs` and `embeddings_dirs` are searched in order; `embeddings` are there besides. `tell` receives notices.
    """

    facts: Facts = field(default_factory=Facts)
    lora_dirs: Sequence[Path] = ()
    embeddings_dirs: Sequence[Path] = ()
    vae_tiling: bool = False
    encodings: EncodingCache | None = None
    """Encoded prompts to use again; only for a model whose weights stay as they are."""
    tell: Callable[[Notice], None] = lambda notice: None
    embeddings: Sequence[Embedding] = ()


@contextmanager
def evaluating(model: LoadedModel) -> Iterator[None]:
    """Evaluation mode and inference mode; every module goes back to the mode it was in."""
    modules = [inner for part in model.parts.values() for inner in part.modules()]
    before = [module.training for module in modules]
    try:
        for part in model.parts.values():
            part.eval()
        with torch.inference_mode():
            yield
    finally:
        for module, training in zip(modules, before, strict=True):
            module.training = training


def generate(
    model: LoadedModel, request: SampleRequest, token: CancelToken | None = None,
    on_progress: Progress | None = None, surroundings: Surroundings | None = None,
) -> Iterator[Picture]:
    """The pictures of a request, in order.

    Raises `UserError` before any work for a request that cannot be met, `Cancelled` within one evaluation after the
    user asked to stop. Between two pictures the model is as it was (the modules' mode, and LoRA taken off again).
    """
    check_request(request, model.family)
    request = without_comments(request)
    seeds = seeds_of(request)
    around = surroundings or Surroundings()
    around = replace(around, encodings=around.encodings or EncodingCache())
    library = library_for(model, around)
    for start in range(0, request.count, request.batch_size):
        part = slice(start, start + request.batch_size)
        batch = Batch(seeds.seeds[part], seeds.subseeds[part])
        yield from _batch(model, request, batch, token or CancelToken(), on_progress, around, library)


def library_for(model: LoadedModel, around: Surroundings) -> Library:
    """The embeddings that a prompt may name: those given, and of the folders those that fit the model."""
    width = sum(config.width for config in model.family.text)
    found = load_library(around.embeddings_dirs, model.tokenizers[0], width)
    given = {embedding.name for embedding in around.embeddings}
    others = (embedding for embedding in found.embeddings if embedding.name not in given)
    return Library((*around.embeddings, *others), model.tokenizers[0])


def _batch(
    model: LoadedModel, request: SampleRequest, batch: Batch, token: CancelToken, on_progress: Progress | None,
    around: Surroundings, library: Library,
) -> list[Picture]:
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        stack.enter_context(resized_after_upsampling(model.unet))
        networks = stack.enter_context(Networks(model, around.lora_dirs))
        tiling = request.options.tiling if request.tiling is None else request.tiling
        stack.enter_context(tileable([model.unet, model.vae], bool(tiling)))
        stack.enter_context(tiles(model.vae, around.vae_tiling))
        pictures = Pictures(model.vae, model.family.scale_factor, request.options, around.tell)
        passes = Passes(model, request, networks, pictures, library, token, on_progress, around.encodings)
        latents = run_passes(passes, batch)
        if latents.isnan().any():
            raise JobFailed("the UNet gave no numbers (NaN)", where="sampling", fix="use --precision fp32, or bf16")
        pixels = ((pictures.decode(latents) + 1.0) / 2.0).clamp(0.0, 1.0)
        facts = replace(around.facts, lora_hashes=networks.hashes, ti_hashes=passes.embedding_hashes,
                        inpainting=model.family.variant == "inpainting")
    latents = latents.float().cpu().clone()  # out of inference mode, so that it can be used for anything
    return [
        Picture(to_picture(pixel), latent, seed, write_infotext(shown, facts, passes.happened))
        for pixel, latent, seed, shown in zip(pixels, latents, batch.seeds, _each(request, batch), strict=True)
    ]


def _each(request: SampleRequest, batch: Batch) -> list[SampleRequest]:
    """The request as it stands for each picture: its own seeds, the first pass's size, and the final one of old."""
    first, final = sizes(request), {}
    if request.enable_hr and request.options.use_old_hires_fix_width_height:
        final = {"hr_resize_x": request.width, "hr_resize_y": request.height}
    return [
        replace(request, seed=seed, subseed=subseed, width=first.width, height=first.height, **final)
        for seed, subseed in zip(batch.seeds, batch.subseeds, strict=True)
    ]
