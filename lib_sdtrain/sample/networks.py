"""<lora:name:weight>: networks put on the model's weights for a pass, and taken off again bit for bit.

`<lora:name:te:unet>` has two weights, the second being the first where it is absent; `te=` and `unet=` name them.
Source: AUTOMATIC1111 WebUI 1.10.1, extensions-builtin/Lora (semantics).
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import torch

from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.model.build import LoadedModel
from lib_sdtrain.model.hashes import addnet_hash, sha256
from lib_sdtrain.model.keys import UNET, part_rows
from lib_sdtrain.model.lora import Lora, open_lora
from lib_sdtrain.model.tensorfile import open_tensors
from lib_sdtrain.sample.composition import Network, networks, without_comments
from lib_sdtrain.settings.sample import SampleRequest

if TYPE_CHECKING:
    from typing_extensions import Self

KINDS = ("lora", "lyco")
UNAVAILABLE = ("hypernet",)
SUFFIXES = (".safetensors", ".pt", ".ckpt")


@dataclass(frozen=True)
class Wanted:
    """A network and its weights on the text encoders and on the UNet."""

    name: str
    text: float
    unet: float


def wanted_of(mark: Network) -> Wanted:
    """What a mark asks for. Raises `UserError` for a weight that is no number."""
    name, *rest = mark.positional or ("",)
    try:
        text = float(mark.named.get("te", rest[0] if rest else 1.0))
        unet = float(mark.named.get("unet", rest[1] if len(rest) > 1 else text))
    except ValueError as error:
        raise UserError(f"<{mark.kind}:{':'.join(mark.positional)}> has a weight that is no number", where="prompt",
                        fix="write <lora:name:0.8>") from error
    if len(rest) > 2 or "dyn" in mark.named:
        raise UserError(f"{name}: a part of a LoRA's rank (dyn) cannot be had here", where="prompt")
    return Wanted(name, text, unet)


def files_in(folders: Iterable[Path]) -> Iterator[Path]:
    """Network files of the folders and what is below them, in order."""
    for folder in folders:
        if folder.is_dir():
            yield from sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def find_network(name: str, folders: Sequence[Path]) -> Path:
    """The file whose name, or whose `ss_output_name`, is `name`. Raises `UserError`."""
    found = list(files_in(folders))
    for path in found:
        if path.stem == name:
            return path
    for path in found:
        if path.suffix.lower() == ".safetensors" and open_tensors(path).metadata.get("ss_output_name") == name:
            return path
    raise UserError(f"no LoRA is called {name!r}", where="prompt",
                    fix=f"looked in {', '.join(map(str, folders)) or 'no folder'}")


def short_hash(path: Path) -> str:
    """The 12 digits by which infotexts know a LoRA."""
    if path.suffix.lower() != ".safetensors":
        return sha256(path)[:12]
    return (open_tensors(path).metadata.get("sshs_model_hash") or addnet_hash(path))[:12]


def check_networks(request: SampleRequest, folders: Sequence[Path]) -> None:
    """Raise `UserError` for every mark of the prompts that no file answers to."""
    problems, request = Problems(), without_comments(request)
    for prompt in (request.prompt, request.hr_prompt if request.enable_hr else ""):
        for mark in () if request.disable_extra_networks else networks(prompt)[1]:
            try:
                _check_mark(mark, folders)
            except UserError as error:
                problems.absorb(error)
    problems.raise_if_any()


def _check_mark(mark: Network, folders: Sequence[Path]) -> None:
    if mark.kind in KINDS:
        find_network(wanted_of(mark).name, folders)
    elif mark.kind in UNAVAILABLE:
        raise UserError(f"<{mark.kind}:...> cannot be had outside of the WebUI", where="prompt")


class Networks:
    """A context: `apply` puts a set of networks on the model in place of the one before; the end takes them off."""

    def __init__(self, model: LoadedModel, folders: Sequence[Path]) -> None:
        self.model, self.folders = model, folders
        self.on: tuple[Wanted, ...] = ()
        self._before: dict[tuple[str, str], torch.Tensor] = {}
        self._used: dict[str, Path] = {}

    @property
    def hashes(self) -> str:
        """As the infotext lists them."""
        plain = str.maketrans("", "", ":,")
        return ", ".join(f"{name.translate(plain)}: {short_hash(path)}" for name, path in self._used.items())

    def apply(self, marks: Sequence[Network]) -> None:
        """Put exactly these networks on. A name that stands twice counts twice, with its last weights."""
        listed = [wanted_of(mark) for mark in marks if mark.kind in KINDS]
        last = {wanted.name: wanted for wanted in listed}
        wanted = tuple(last[item.name] for item in listed)
        if wanted == self.on:
            return
        self._take_off()
        for item in wanted:
            path = find_network(item.name, self.folders)
            self._used[item.name] = path
            self._put_on(open_lora(path, self.model.family), item)
        self.on = wanted

    def _put_on(self, lora: Lora, wanted: Wanted) -> None:
        for part, rows in part_rows(self.model.family).items():
            weight = wanted.unet if part == UNET else wanted.text
            module = self.model.parts[part]
            shapes = {name: tuple(value.shape) for name, value in module.named_parameters()}
            for row in rows:
                if row.key in lora.changes:
                    delta = lora.delta(row.key, self.model.checkpoint.shape(row.key))
                    for name, change in row.to_module(delta, shapes).items():
                        self._add(part, name, change * weight)

    def _add(self, part: str, name: str, change: torch.Tensor) -> None:
        parameter = self.model.parts[part].get_parameter(name).data
        if (part, name) not in self._before:  # kept on the CPU: the GPU may hold no second model
            self._before[part, name] = parameter.to("cpu", copy=True)
        parameter.copy_(parameter.float() + change.to(parameter.device))

    def _take_off(self) -> None:
        for (part, name), before in self._before.items():
            self.model.parts[part].get_parameter(name).data.copy_(before)
        self._before.clear()
        self.on = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._take_off()
