"""Pruning, casting, baking and changing the container of a checkpoint, a few tensors at a time."""
from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

import lib_sdtrain
from lib_sdtrain.errors import Problems
from lib_sdtrain.events import CancelToken, Event, Finished, Notice, Phase, Saved, Started
from lib_sdtrain.model.checkpoint import Checkpoint, find_checkpoint, open_checkpoint
from lib_sdtrain.model.folder_writer import write_folder
from lib_sdtrain.model.hashes import HashCache
from lib_sdtrain.model.metadata import CONVERT, carried, parent_of, provenance
from lib_sdtrain.model.selection import Pick, overflow_notice, select
from lib_sdtrain.model.space import check_space
from lib_sdtrain.model.vae_file import VaeFile, open_vae
from lib_sdtrain.model.writer import CheckpointWriter, Written, file_size
from lib_sdtrain.places import exists
from lib_sdtrain.settings.convert import ConvertSettings
from lib_sdtrain.settings.layers import to_plain

_PICKLED = {".ckpt", ".pt", ".pth", ".bin"}
_PATHS = ("file", "out", "vae")


def convert(settings: ConvertSettings, token: CancelToken, cache: HashCache | None = None) -> Iterator[Event]:
    """Convert a checkpoint; ends with `Finished`, whose document has out, sha256, bytes and seconds.

    Raises `UserError` for impossible settings or files, before anything is written, and `Cancelled` when
    the user stops it; nothing half-written remains either way.
    """
    began = time.monotonic()
    check(settings)
    out = Path(str(settings.out)).expanduser()
    source = open_checkpoint(str(settings.file))
    vae = open_vae(settings.vae, source.family.vae, exact=source.parts["vae"]) if settings.vae else None
    picks = select(source, settings, vae)
    yield Started(job="convert", total=len(picks))
    for note in source.tensors.notes:
        yield Notice(text=note, where=str(source.path))
    metadata = yield from _metadata(settings, source, vae, token, cache)
    write = _write_file if out.suffix == ".safetensors" else write_folder
    written = yield from write(out, picks, metadata, source, token)
    yield Saved(file=str(out), sha256=written.sha256)
    yield Finished(
        result={
            "out": str(out), "sha256": written.sha256, "bytes": written.size,
            "seconds": round(time.monotonic() - began, 3),
        }
    )  # fmt: skip


def check(settings: ConvertSettings) -> None:
    """Raise `UserError` with every mistake that can be seen without opening a model."""
    problems = Problems()
    for name in ("file", "out"):
        if not getattr(settings, name):
            problems.add("a value is needed", where=name)
    if settings.no_vae and settings.vae:
        problems.add("a VAE cannot be both left out and put in", where="vae", fix="give only one of the two")
    if settings.out:
        _check_target(settings, Path(settings.out).expanduser(), problems)
    problems.raise_if_any()


def _check_target(settings: ConvertSettings, out: Path, problems: Problems) -> None:
    if out.suffix.lower() in _PICKLED:
        problems.add(
            f"{out.suffix} files can carry programs and are not written", where=str(out),
            fix="end the name in .safetensors",
        )
    elif out.suffix != ".safetensors" and exists(out) and (not out.is_dir() or any(out.iterdir())):
        problems.add("something of this name stands there already", where=str(out), fix="name a new folder")
    for name in ("file", "vae"):
        given = getattr(settings, name)
        if given and find_checkpoint(given).resolve() == out.resolve():
            problems.add("the result would overwrite its source", where=str(out), fix="choose another name")


def _metadata(
    settings: ConvertSettings, source: Checkpoint, vae: VaeFile | None, token: CancelToken, cache: HashCache | None
) -> Generator[Event, None, dict[str, str]]:
    """What the result says of itself; hashing the sources takes a second for every gigabyte or two."""
    files = {"checkpoint": (source.path, source.tensors)} | ({"vae": (vae.path, vae.file)} if vae else {})
    parents = {}
    for done, (role, (path, tensors)) in enumerate(files.items()):
        yield Phase(name="hashing", done=done, total=len(files), unit="files")
        parents[role] = parent_of(path, tensors.metadata, cache, lambda _done, _total: token.check())
    chosen = {name: value for name, value in to_plain(settings, only_changed=True).items() if name not in _PATHS}
    versions = {"sdtrain": lib_sdtrain.__version__}
    return {**carried(source.tensors.metadata), **provenance(CONVERT, chosen, parents, versions)}


def _write_file(
    out: Path, picks: Mapping[str, Pick], metadata: Mapping[str, str], source: Checkpoint, token: CancelToken
) -> Generator[Event, None, Written]:
    specs = {key: (pick.dtype, pick.shape) for key, pick in picks.items()}
    check_space(out, file_size(specs, metadata))
    beyond = []
    with CheckpointWriter(out, specs, metadata, source.config_text) as writer:
        for done, key in enumerate(writer.keys):
            token.check()
            yield Phase(name="writing", done=done, total=len(specs), unit="tensors")
            if writer.write_cast(key, picks[key].stored()):
                beyond.append(key)
    yield from overflow_notice(beyond, out)
    return writer.result
