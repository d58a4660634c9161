"""Writing a checkpoint as a diffusers folder: weights, configurations, tokenizer, scheduler, index."""
from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_sdtrain.durable import fsync_path, remove_stale, temporary_beside
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, Event, Notice, Phase
from lib_sdtrain.model.build import empty_modules
from lib_sdtrain.model.checkpoint import Checkpoint
from lib_sdtrain.model.family import Family
from lib_sdtrain.model.header import Spec
from lib_sdtrain.model.keys import TEXT_ENCODERS, UNET, VAE, Row, part_rows
from lib_sdtrain.model.parts import EMA, part_of
from lib_sdtrain.model.selection import Pick, overflow_notice
from lib_sdtrain.model.space import check_space
from lib_sdtrain.model.tokenizer import BOS_ID, EOS_ID, read_vocabulary, vocabulary_path
from lib_sdtrain.model.writer import CheckpointWriter, Written, file_size

if TYPE_CHECKING:
    from torch import nn

_STEMS = {UNET: "diffusion_pytorch_model", VAE: "diffusion_pytorch_model"}
_TEXT_STEM = "model"
_PIPELINES = {
    (False, "base"): "StableDiffusionPipeline",
    (False, "inpainting"): "StableDiffusionInpaintPipeline",
    (False, "instruct_pix2pix"): "StableDiffusionInstructPix2PixPipeline",
    (True, "base"): "StableDiffusionXLPipeline",
    (True, "inpainting"): "StableDiffusionXLInpaintPipeline",
    (True, "instruct_pix2pix"): "StableDiffusionXLInstructPix2PixPipeline",
}
_LATENT_SIDE = 8  # pixels a latent pixel in diffusers' sample_size


@dataclass(frozen=True)
class Part:
    """One module of the folder: its table, its parameters' formats and shapes."""

    name: str
    module: nn.Module
    rows: list[Row]
    specs: dict[str, Spec]

    @property
    def file(self) -> str:
        """Its weights, relative to the folder."""
        return f"{self.name}/{_STEMS.get(self.name, _TEXT_STEM)}.safetensors"


def write_folder(
    out: Path, picks: Mapping[str, Pick], metadata: Mapping[str, str], source: Checkpoint, token: CancelToken
) -> Generator[Event, None, Written]:
    """Write a folder that diffusers loads; it appears whole under its name, or not at all.

    The result's hash is that of `hashes.model_digest`. Raises `UserError` when a part is incomplete.
    """
    family = as_diffusers(source)
    parts = _parts(family, picks, source)
    check_space(out, sum(file_size(part.specs, metadata) for part in parts))
    remove_stale(out)
    temporary = temporary_beside(out)
    if any(part_of(key) == EMA for key in picks):
        yield Notice(text="EMA weights are left out: a diffusers folder has no place for them", where=str(out))
    try:
        digests = {}
        for part in parts:
            digests[part.file] = yield from _write_part(temporary / part.file, part, picks, metadata, token)
        _write_descriptions(temporary, family, {part.name: part.module for part in parts})
        if out.is_dir():
            out.rmdir()  # an empty one; Windows does not rename over it
        temporary.rename(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_path(out.parent)
    lines = "".join(f"{written.sha256}  {name}\n" for name, written in sorted(digests.items()))
    return Written(out, hashlib.sha256(lines.encode()).hexdigest(), sum(written.size for written in digests.values()))


def as_diffusers(source: Checkpoint) -> Family:
    """The family as a diffusers pipeline uses it: SD2's folders end the text encoder at the layer that is used."""
    family = source.family
    if family.unet.heads is None:
        raise UserError(
            "its UNet is of no published size, and nothing tells the number of attention heads",
            where=str(source.path), fix="put the model's LDM .yaml beside it, under the same name",
        )
    texts = tuple(
        replace(text, layers=text.layers + 1 + text.hidden_index, hidden_index=-1)
        if text.final_norm and text.hidden_index < 0 else text
        for text in family.text
    )  # fmt: skip
    return replace(family, text=texts)


def _parts(family: Family, picks: Mapping[str, Pick], source: Checkpoint) -> list[Part]:
    modules = empty_modules(family)
    found = []
    for name, rows in part_rows(family).items():
        missing = [row.key for row in rows if row.key not in picks]
        if len(missing) == len(rows):
            continue
        if missing:
            raise UserError(f"the tensor {missing[0]} is missing", where=str(source.path))
        shapes = {key: tuple(value.shape) for key, value in modules[name].state_dict().items()}
        specs = {key: (picks[row.key].dtype, shapes[key]) for row in rows for key in row.names}
        found.append(Part(name, modules[name], rows, specs))
    return found


def _write_part(
    file: Path, part: Part, picks: Mapping[str, Pick], metadata: Mapping[str, str], token: CancelToken
) -> Generator[Event, None, Written]:
    shapes = {key: shape for key, (_, shape) in part.specs.items()}
    beyond = []
    with CheckpointWriter(file, part.specs, metadata) as writer:
        for done, row in enumerate(part.rows):
            token.check()
            yield Phase(name=f"writing {part.name}", done=done, total=len(part.rows), unit="tensors")
            values = row.to_module(picks[row.key].stored(), shapes)
            for name, value in values.items():
                if writer.write_cast(name, value):
                    beyond.append(name)
    yield from overflow_notice(beyond, file)
    return writer.result


def _write_descriptions(folder: Path, family: Family, modules: Mapping[str, nn.Module]) -> None:
    index: dict[str, Any] = {
        "_class_name": _PIPELINES[family.is_sdxl, family.variant], **_version(),
        "feature_extractor": [None, None], "image_encoder": [None, None],
    }  # fmt: skip
    if not family.is_sdxl:
        index |= {"safety_checker": [None, None], "requires_safety_checker": False}
    for name in (UNET, VAE, *TEXT_ENCODERS[: len(family.text)]):
        index[name] = [None, None]
    for name, module in modules.items():
        library = "diffusers" if name in _STEMS else "transformers"
        index[name] = [library, type(module).__name__]
        _write_config(folder / name, module, family)
    for number, _ in enumerate(family.text):
        name = "tokenizer" + ("_2" if number else "")
        index[name] = ["transformers", "CLIPTokenizer"]
        _write_tokenizer(folder / name, "!" if family.text[number].layout == "open_clip" else None)
    index["scheduler"] = ["diffusers", _write_scheduler(folder / "scheduler", family)]
    _write_json(folder / "model_index.json", dict(sorted(index.items())))


def _version() -> dict[str, str]:
    import diffusers

    return {"_diffusers_version": diffusers.__version__}


def _write_config(folder: Path, module: Any, family: Family) -> None:
    if hasattr(module, "register_to_config"):
        side = {"sample_size": family.resolution // _LATENT_SIDE}
        if folder.name == VAE:  # SDXL's VAE overflows in fp16, and diffusers is told so here
            side = {"sample_size": family.resolution, "force_upcast": family.is_sdxl}
        module.register_to_config(**side)
        module.save_config(folder)
        return
    module.config.architectures = [type(module).__name__]
    module.config.save_pretrained(folder)


def _write_scheduler(folder: Path, family: Family) -> str:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    schedule = family.schedule
    zero = schedule.zero_terminal_snr
    DDIMScheduler(
        num_train_timesteps=schedule.timesteps, beta_start=schedule.linear_start, beta_end=schedule.linear_end,
        beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1,
        prediction_type=family.prediction_type,
        rescale_betas_zero_snr=zero, timestep_spacing="trailing" if zero else "leading",
    ).save_config(folder)
    return DDIMScheduler.__name__


def _write_tokenizer(folder: Path, pad_token: str | None) -> None:
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = read_vocabulary(vocabulary_path())
    specials = {"<|startoftext|>": BOS_ID, "<|endoftext|>": EOS_ID}
    _write_json(folder / "vocab.json", vocabulary.ids | specials)
    merges = "\n".join(" ".join(pair) for pair in vocabulary.ranks)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", "utf-8")
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), pad_token=pad_token or "<|endoftext|>",
        model_max_length=77,
    )  # fmt: skip
    tokenizer.save_pretrained(str(folder))


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", "utf-8")
