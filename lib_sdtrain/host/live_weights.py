"""Putting tensors into a loaded model as its loader would, and getting the old ones back, bit for bit.

Nothing of a host is imported: a model is a tree of modules whose tensors have a checkpoint's names, except for the
`.wrapped` that the WebUI's own wrappers put in between.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lib_sdtrain.errors import UserError

VAE = "first_stage_model."
TEXT = ("cond_stage_model.", "conditioner.")
_WRAPPER = "wrapped"
_CACHED = {"weight": "fp16_weight", "bias": "fp16_bias"}

Find = Callable[[str], "Tensor | None"]
Tell = Callable[[int, int], None]


def _leave(module: nn.Module) -> None:
    """Nothing has changed the module's weights for a while."""


@dataclass(frozen=True)
class Loading:
    """How the host's loader treats what it loads.

    `half_first`: everything passes through fp16 (the way to fp8 storage). `cleanse` gives a module its own weights
    back where a LoRA has changed them. `vae_aside` are the VAE's tensors (names without prefix) while the host has
    put another VAE into the model: they are the checkpoint's then (empty where the host has lost them).
    """

    half_first: bool = False
    cleanse: Callable[[nn.Module], None] = _leave
    vae_aside: dict[str, Tensor] | None = None

    def chained(self, value: Tensor) -> Tensor:
        """A file's tensor on its way to the model's own number format."""
        return value.half() if self.half_first and value.is_floating_point() else value


@dataclass(frozen=True)
class _InModule:
    """Tensors of one module; loading it resets what a LoRA remembers of it."""

    module: nn.Module
    loading: Loading

    def get(self, name: str) -> Tensor:
        return self.module.get_parameter(name) if name in self._parameters() else self.module.get_buffer(name)

    def _parameters(self) -> set[str]:
        return {name for name, _ in self.module.named_parameters()}

    def put(self, values: Mapping[str, Tensor]) -> None:
        chained = {name: self.loading.chained(value) for name, value in values.items()}
        self.module.load_state_dict(chained, strict=False)
        for name, cache in _CACHED.items():
            if name in chained and getattr(self.module, cache, None) is not None:
                setattr(self.module, cache, chained[name].clone().cpu().half())

    def cached(self, name: str) -> Tensor | None:
        return getattr(self.module, _CACHED.get(name, ""), None)

    def put_cached(self, name: str, value: Tensor | None) -> None:
        if value is not None:
            setattr(self.module, _CACHED[name], value)


@dataclass(frozen=True)
class _Aside:
    """The tensors of the checkpoint's VAE that the host keeps while another one is in the model."""

    tensors: dict[str, Tensor]
    loading: Loading

    def get(self, name: str) -> Tensor:
        return self.tensors[name]

    def put(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self.tensors[name].copy_(self.loading.chained(value))

    def cached(self, name: str) -> None:
        del name

    def put_cached(self, name: str, value: Tensor | None) -> None:
        del name, value


def places(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """A checkpoint's names -> the module that owns the tensor, and the tensor's name there.

    An attention of torch owns its output's tensors: a LoRA treats the two as one.
    """
    found: dict[str, tuple[nn.Module, str]] = {}
    modules = dict(model.named_modules())
    for path, module in modules.items():
        above, _, last = path.rpartition(".")
        parent = modules.get(above)
        owner, prefix = (parent, f"{last}.") if isinstance(parent, nn.MultiheadAttention) else (module, "")
        for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            parts = [part for part in f"{path}.{name}".split(".") if part and part != _WRAPPER]
            found[".".join(parts)] = (owner, prefix + name)
    return found


@dataclass
class LiveWeights:
    """Which tensors of a loaded model are not its checkpoint's, and those bits that the file cannot give back."""

    touched: set[str] = field(default_factory=set)
    kept: dict[str, tuple[Tensor, Tensor | None]] = field(default_factory=dict)

    def put(
        self, model: nn.Module, keys: Iterable[str], tensor: Callable[[str], Tensor], original: Find, loading: Loading,
        tell: Tell,
    ) -> None:
        """Put `tensor(key)`, as a file would hold it, in the place of every key that the model has.

        `original(key)` is what the model's own file holds, None where it has none. Raises `UserError` for a tensor
        of another size; what has been put until then stays (`put_back` undoes it).
        """  # fmt: skip
        with torch.no_grad():
            groups = _groups(model, keys, loading)
            for done, (place, names) in enumerate(groups):
                tell(done, len(groups))
                values = {name: tensor(key) for key, name in names.items()}
                for key, name in names.items():
                    _check_size(key, place.get(name), values[name])
                    self._remember(place, key, name, original, loading)
                place.put(values)
            tell(len(groups), len(groups))

    def _remember(self, place: Any, key: str, name: str, original: Find, loading: Loading) -> None:
        if key in self.touched:
            return
        now, stored = place.get(name).detach(), original(key)
        if stored is None or not same_bits(loading.chained(stored).to(now.dtype), now):
            cache = place.cached(name)
            self.kept[key] = (now.to("cpu", copy=True), None if cache is None else cache.clone())
        self.touched.add(key)

    def put_back(self, model: nn.Module, original: Find, loading: Loading) -> None:
        """The model as it was before the first `put`."""
        with torch.no_grad():
            for place, names in _groups(model, self.touched, loading):
                place.put({name: self._old(key, original) for key, name in names.items()})
                for key, name in names.items():
                    if key in self.kept:
                        place.put_cached(name, self.kept[key][1])
        self.touched.clear()
        self.kept.clear()

    def _old(self, key: str, original: Find) -> Tensor:
        if key in self.kept:
            return self.kept[key][0]
        found = original(key)
        if found is None:
            raise UserError(f"the checkpoint's file no longer has {key}", fix="load the checkpoint again")
        return found


def _groups(model: nn.Module, keys: Iterable[str], loading: Loading) -> list[tuple[Any, dict[str, str]]]:
    """The keys that the model has, by the module that owns them: (place, key -> name there)."""
    where = places(model)
    found: dict[int, tuple[Any, dict[str, str]]] = {}
    for key in keys:
        if loading.vae_aside is not None and key.startswith(VAE):
            name = key.removeprefix(VAE)
            if name in loading.vae_aside:
                found.setdefault(0, (_Aside(loading.vae_aside, loading), {}))[1][key] = name
        elif key in where:
            owner, name = where[key]
            if id(owner) not in found:
                loading.cleanse(owner)
                found[id(owner)] = (_InModule(owner, loading), {})
            found[id(owner)][1][key] = name
    return list(found.values())


def _check_size(key: str, live: Tensor, value: Tensor) -> None:
    if live.shape != value.shape:
        sizes = " and ".join("x".join(map(str, tensor.shape)) for tensor in (live, value))
        raise UserError(f"{key} has another size in the loaded model than in the merge ({sizes})", where="a",
                        fix="load model A in the WebUI again")  # fmt: skip


def same_bits(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors of one format hold the same bits: also where they are no numbers, and minus zero."""
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    first, second = (part.to("cpu").contiguous().reshape(-1).view(torch.uint8) for part in (left, right))
    return torch.equal(first, second)


def changes_text(keys: Iterable[str]) -> bool:
    """Whether one of the keys is a text encoder's: what was encoded before no longer holds then."""
    return any(key.startswith(TEXT) for key in keys)
