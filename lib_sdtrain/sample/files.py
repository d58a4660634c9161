"""The files that a request's names stand for: checkpoints, VAEs, LoRA, embeddings."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.checkpoint import EMBEDDED, find_checkpoint
from lib_sdtrain.places import is_file
from lib_sdtrain.settings.sample import SampleSettings

WEIGHTS = (".safetensors", ".ckpt", ".pt", ".bin")
AUTOMATIC, OWN = ("Automatic", "auto"), "None"


@dataclass(frozen=True)
class Folders:
    """Where names are looked up, in order."""

    checkpoints: tuple[Path, ...]
    lora: tuple[Path, ...]
    embeddings: tuple[Path, ...]
    vae: tuple[Path, ...]


def folders(settings: SampleSettings) -> Folders:
    """The checkpoint's own folder first, then those of the WebUI's layout below the current one."""
    own = find_checkpoint(settings.checkpoint).parent
    lora = (Path(settings.lora_dir),) if settings.lora_dir else (own, Path("models/Lora"))
    embeddings = (Path(settings.embeddings_dir),) if settings.embeddings_dir else (own, Path("embeddings"))
    return Folders((own, Path("models/Stable-diffusion")), lora, embeddings, (own, Path("models/VAE")))


def weights_in(places: Iterable[Path], suffixes: Sequence[str] = WEIGHTS) -> list[Path]:
    """Every weights file of the folders, in order."""
    return [
        path for place in places if place.is_dir() for path in sorted(place.iterdir())
        if path.suffix.lower() in suffixes and path.is_file()
    ]


def find_named(name: str, places: Sequence[Path], what: str, where: str) -> Path:
    """The file called `name` (a path, a file name, or a name without its ending).

    Raises `UserError` with the names that were found instead.
    """
    if is_file(Path(name).expanduser()):
        return Path(name).expanduser()
    found = weights_in(places)
    for path in found:
        if name in (path.name, path.stem):
            return path
    known = ", ".join(sorted({path.stem for path in found})[:12])
    raise UserError(f"no {what} is called {name!r}", where=where,
                    fix=f"found in {', '.join(map(str, places))}: {known or 'nothing'}")


def find_override(name: str, places: Sequence[Path]) -> Path:
    """The checkpoint that `sd_model_checkpoint` means; the WebUI's title `name.safetensors [0123456789]` works too."""
    if name in EMBEDDED:
        return EMBEDDED[name]
    plain = name.rpartition(" [")[0] if name.endswith("]") else name
    return find_named(plain, places, "checkpoint", "sd_model_checkpoint")


def find_vae(name: str, checkpoint: Path, places: Sequence[Path]) -> Path | None:
    """The VAE file in force, None for the checkpoint's own.

    Automatic takes a `.vae.` file whose name starts with the checkpoint's. Raises `UserError` for an unknown name.
    """
    if name == OWN:
        return None
    if name not in AUTOMATIC:
        return find_named(name, places, "VAE", "sd_vae")
    named = [path for path in weights_in(places) if Path(path.stem).suffix == ".vae"]
    return next((path for path in named if path.name.startswith(checkpoint.stem)), None)
