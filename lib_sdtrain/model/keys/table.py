"""One row of a key table: a tensor of the file and the module's parameters that hold it.

A row says everything that is needed to go both ways; going there and back gives the same bytes.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Row:
    """`key` (LDM/SGM, as in a file) is held by the parameters `names` (diffusers, transformers).

    Several names stand for equal parts stacked along the first axis (q, k and v). `transposed` matrices are stored
    the other way round. Trailing axes of length one may differ (a 1x1 convolution is a matrix).
    """

    key: str
    names: tuple[str, ...]
    transposed: bool = False

    def to_module(self, tensor: Tensor, shapes: Mapping[str, Iterable[int]]) -> dict[str, Tensor]:
        """The parameters that the file's `tensor` holds, as views of it, in the module's `shapes`.

        Raises `ValueError` naming the key when the number of values does not fit.
        """
        whole = tensor.t() if self.transposed else tensor
        if whole.ndim == 0 or whole.shape[0] % len(self.names):
            raise ValueError(f"{self.key}: {tuple(tensor.shape)} is not {len(self.names)} equal parts")
        parts = whole.chunk(len(self.names), dim=0)
        return {name: self._shaped(part, tuple(shapes[name])) for name, part in zip(self.names, parts, strict=True)}

    def to_file(self, parameters: Mapping[str, Tensor], shape: Iterable[int]) -> Tensor:
        """The file's tensor of the given `shape` from the module's parameters."""
        import torch

        parts = [parameters[name] for name in self.names]
        whole = torch.cat(parts) if len(parts) > 1 else parts[0]
        return self._shaped(whole.t() if self.transposed else whole, tuple(shape))

    def _shaped(self, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
        if _squeezed(tuple(tensor.shape)) != _squeezed(shape):
            raise ValueError(f"{self.key}: {tuple(tensor.shape)} does not fit {shape}")
        return tensor.reshape(shape)


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without its trailing ones (kernels of 1x1 convolutions)."""
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def layer(key: str, name: str) -> Iterator[Row]:
    """The weight and bias of a layer."""
    for part in ("weight", "bias"):
        yield Row(f"{key}.{part}", (f"{name}.{part}",))


def weight(key: str, name: str) -> Iterator[Row]:
    """The weight of a layer without bias."""
    yield Row(f"{key}.weight", (f"{name}.weight",))


def layers(key: str, name: str, pairs: Iterable[tuple[str, str]]) -> Iterator[Row]:
    """Weights and biases of the layers `pairs` (their names below `key` and below `name`)."""
    for below_key, below_name in pairs:
        yield from layer(f"{key}.{below_key}", f"{name}.{below_name}")
