"""LoRA files as changes to a checkpoint's tensors: LoRA, LoCon, LoHa, LoKr and full differences.

A change is scaled by alpha / rank, or by the module's own `scale`, as the WebUI and kohya's scripts do. Everything is
computed in fp32.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.family import Family
from lib_sdtrain.model.keys import part_rows
from lib_sdtrain.model.lora_names import Place, kohya_name, layer_places
from lib_sdtrain.model.tensorfile import TensorFile, open_tensors

Parts = dict[str, Tensor]

_SUFFIX = re.compile(
    r"(.+)\.(lora_(?:down|up|mid|A|B)(?:\.default)?\.weight|lora\.(?:down|up)\.weight|alpha|hada_[wt][12](?:_[ab])?|"
    r"lokr_(?:w[12](?:_[ab])?|t2)|diff|diff_b|dora_scale|oft_\w+|scale|w_norm|b_norm|on_input|[abc][12]\.weight)$"
)
_SAME = {"lora_A": "lora_down", "lora_B": "lora_up", "lora.down": "lora_down", "lora.up": "lora_up"}


@dataclass(frozen=True)
class Lora:
    """An opened LoRA: tensor name of the checkpoint -> the modules that change it. `notes` say what was left out."""

    path: Path
    tensors: TensorFile
    changes: dict[str, tuple[tuple[Place, dict[str, str]], ...]]
    notes: tuple[str, ...]

    def delta(self, key: str, shape: tuple[int, ...]) -> Tensor:
        """The change of a checkpoint's tensor at weight 1, fp32, in its `shape`.

        Raises `UserError` when the LoRA was made for another size of model.
        """
        total = torch.zeros(shape)
        for place, names in self.changes[key]:
            part = total.t() if place.transposed else total
            part = part.chunk(place.count, dim=0)[place.index]
            delta = module_delta({name: self.tensors.tensor(file_key).float() for name, file_key in names.items()})
            if delta.numel() != part.numel():
                raise UserError(
                    f"its change to {key} has {delta.numel():,} values, the checkpoint {part.numel():,}",
                    where=str(self.path), fix="this LoRA was made for another model",
                )
            part += delta.reshape(part.shape)
        return total


def open_lora(path: Path, family: Family) -> Lora:
    """Open a LoRA for checkpoints of `family`.

    Raises `UserError` when it is no LoRA, of a kind that is not known here, or for another family.
    """
    tensors = open_tensors(path)
    modules: dict[str, dict[str, str]] = {}
    names = tensors.keys()
    for key in names:
        match = _SUFFIX.fullmatch(key)
        if match:
            modules.setdefault(kohya_name(match[1]), {})[_part_name(match[2])] = key
    if not modules:
        raise UserError("this is not a LoRA", where=str(path), fix="give a .safetensors file made by LoRA training")
    places = layer_places(family)
    changes: dict[str, tuple[tuple[Place, dict[str, str]], ...]] = {}
    unknown = [name for name in modules if name not in places]
    if len(unknown) == len(modules):
        raise UserError(
            f"it changes no layer of {family.name} (it names {unknown[0]})", where=str(path),
            fix="choose a LoRA made for this family",
        )
    biases = {row.key for rows in part_rows(family).values() for row in rows}
    for name, parts in modules.items():
        if name in places:
            for place, own in _placed(places[name], parts, name, path, biases):
                changes[place.key] = (*changes.get(place.key, ()), (place, own))
    notes = (f"{path.name}: {len(unknown)} layers are not in this model ({unknown[0]} ...)",) if unknown else ()
    return Lora(path, tensors, changes, notes)


def _placed(
    place: Place, parts: dict[str, str], name: str, path: Path, known: set[str]
) -> Iterator[tuple[Place, dict[str, str]]]:
    """What a module changes: a weight, and its bias where the module has a difference for one. Raises `UserError`."""
    own = {part: key for part, key in parts.items() if part != "diff_b"}
    if own or not parts:
        _builder(own, name, path)
        yield place, own
    if "diff_b" in parts:
        bias = replace(place, key=f"{place.key.removesuffix('weight')}bias")
        if bias.key not in known:
            raise UserError(f"{name} changes a bias, and the layer has none", where=str(path),
                            fix="this LoRA was made for another model")
        yield bias, {"diff_b": parts["diff_b"]}


def _part_name(suffix: str) -> str:
    name = suffix.removesuffix(".weight").removesuffix(".default")
    return _SAME.get(name, name)


def _builder(parts: dict[str, str], name: str, path: Path) -> Callable[[Parts], Tensor]:
    for needed, build in _BUILDERS:
        if needed <= set(parts) and "dora_scale" not in parts:
            return build
    listed = ", ".join(sorted(parts))
    raise UserError(f"{name} is of a kind that is not supported ({listed})", where=str(path),
                    fix="LoRA, LoCon, LoHa, LoKr and full differences are")


def module_delta(parts: Parts) -> Tensor:
    """The change that a module's tensors (fp32) stand for, at weight 1. Any trailing shape."""
    return next(build for needed, build in _BUILDERS if needed <= set(parts))(parts)


def _scale(parts: Parts, rank: int | None) -> float:
    if "scale" in parts:
        return parts["scale"].item()
    return parts["alpha"].item() / rank if "alpha" in parts and rank else 1.0


def _lora(parts: Parts) -> Tensor:
    """up down, or for a kernel in three factors sum_nm up[i,n] mid[n,m,k,l] down[m,j] (LoCon with CP)."""
    up, down = parts["lora_up"], parts["lora_down"]
    rank = down.shape[0]
    if "lora_mid" in parts:
        delta = torch.einsum("nmkl,in,mj->ijkl", parts["lora_mid"], up.flatten(1), down.flatten(1))
    else:
        delta = up.flatten(1) @ down.flatten(1)
    return delta * _scale(parts, rank)


def _factor(parts: Parts, number: int) -> Tensor:
    first, second = parts[f"hada_w{number}_a"], parts[f"hada_w{number}_b"]
    core = parts.get(f"hada_t{number}")
    if core is None:
        return first @ second
    return torch.einsum("ijkl,jr,ip->prkl", core, second, first)


def _loha(parts: Parts) -> Tensor:
    """(w1a w1b) * (w2a w2b), element by element. Source: Hyeon-Woo et al. 2022 (FedPara); LyCORIS."""
    return _factor(parts, 1) * _factor(parts, 2) * _scale(parts, parts["hada_w1_b"].shape[0])


def _lokr(parts: Parts) -> Tensor:
    """The Kronecker product of two matrices, each given whole or as a product. Source: LyCORIS."""
    rank = None
    factors = []
    for name in ("lokr_w1", "lokr_w2"):
        if name in parts:
            factors.append(parts[name])
            continue
        first, second = parts[f"{name}_a"], parts[f"{name}_b"]
        rank = second.shape[0]
        core = parts.get("lokr_t2") if name == "lokr_w2" else None
        whole = first @ second if core is None else torch.einsum("ijkl,jr,ip->prkl", core, second, first)
        factors.append(whole)
    left, right = factors
    left = left.reshape(*left.shape, *(1,) * (right.dim() - left.dim()))
    return torch.kron(left, right.contiguous()) * _scale(parts, rank)


_BUILDERS: tuple[tuple[set[str], Callable[[Parts], Tensor]], ...] = (
    ({"lora_up", "lora_down"}, _lora),
    ({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}, _loha),
    ({"lokr_w1", "lokr_w2"}, _lokr),
    ({"lokr_w1", "lokr_w2_a", "lokr_w2_b"}, _lokr),
    ({"lokr_w1_a", "lokr_w1_b", "lokr_w2"}, _lokr),
    ({"lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b"}, _lokr),
    ({"diff"}, lambda parts: parts["diff"] * _scale(parts, None)),
    ({"diff_b"}, lambda parts: parts["diff_b"]),
)
