"""Models in memory for a series of requests: one checkpoint at a time, its VAE, and what infotexts say of them."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from lib_sdtrain.model.build import LoadedModel, build_vae, load_model
from lib_sdtrain.model.checkpoint import find_checkpoint, open_checkpoint
from lib_sdtrain.model.hashes import autov2, model_digest
from lib_sdtrain.model.vae_file import open_vae
from lib_sdtrain.sample.files import Folders, find_override, find_vae
from lib_sdtrain.sample.infotext import Facts
from lib_sdtrain.sample.text_encoding import EncodingCache
from lib_sdtrain.settings.sample import SampleOptions, SampleSettings

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def pick_device(name: str) -> str:
    """`auto` is cuda where there is one, else Apple's mps, else cpu."""
    if name != "auto":
        return name
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def pick_dtype(name: str, device: str) -> torch.dtype:
    """`auto` is half precision on a GPU and full on a CPU."""
    return _DTYPES["fp32" if device == "cpu" else "fp16"] if name == "auto" else _DTYPES[name]


class Models:
    """Lends the model that a request wants; a change of checkpoint or VAE loads anew."""

    def __init__(self, settings: SampleSettings, folders: Folders) -> None:
        self.settings, self.folders = settings, folders
        self.device = pick_device(settings.device)
        self.dtype = pick_dtype(settings.precision, self.device)
        self._key: tuple[Path, Path | None] | None = None
        self._model: LoadedModel | None = None
        self._facts = Facts()
        self.encodings = EncodingCache()

    def files(self, options: SampleOptions) -> tuple[Path, Path | None]:
        """(checkpoint, VAE or None) of a request. Raises `UserError` for names that are not found."""
        path = find_checkpoint(self.settings.checkpoint)
        if options.sd_model_checkpoint:
            path = find_override(options.sd_model_checkpoint, self.folders.checkpoints)
        vae = Path(self.settings.vae) if self.settings.vae else find_vae(options.sd_vae, path, self.folders.vae)
        return path, vae

    def lend(self, options: SampleOptions) -> tuple[LoadedModel, Facts]:
        """The model in memory and what its infotexts say of it."""
        key = self.files(options)
        if key != self._key:
            self._model, self.encodings = None, EncodingCache()  # two models need not fit at once
            self._model, self._facts = self._load(*key)
            self._key = key
        return self._model, self._facts

    def _load(self, path: Path, vae: Path | None) -> tuple[LoadedModel, Facts]:
        checkpoint, facts = open_checkpoint(path), Facts(model_hash=autov2(model_digest(path)), model=path.stem)
        if vae is None:
            return load_model(checkpoint, self.device, self.dtype), facts
        # the VAE first: should it not fit, nothing large has been read
        module = build_vae(checkpoint, self.device, self.dtype, open_vae(vae, checkpoint.family.vae))
        model = load_model(checkpoint, self.device, self.dtype, with_vae=False)
        named = replace(facts, vae=vae.name, vae_hash=autov2(model_digest(vae)))
        return replace(model, vae=module), named
