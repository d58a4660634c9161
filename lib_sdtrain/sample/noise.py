"""Where the noise of a picture comes from: one generator an image, in the WebUI's order of draws.

Nothing here reads or moves torch's global generator.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_TWO_POW_MINUS_32 = np.float32(2.3283064e-10)
_MASK = np.uint64(0xFFFFFFFF)


class Source(Protocol):
    """A stream of standard normal tensors."""

    def randn(self, shape: Sequence[int]) -> torch.Tensor:
        """The next tensor, float32."""
        ...


class TorchSource:
    """torch's own generator on `device`."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._device = device
        self._generator = torch.Generator(device).manual_seed(int(seed))

    def randn(self, shape: Sequence[int]) -> torch.Tensor:
        """The next tensor, float32, on the generator's device."""
        return torch.randn(tuple(shape), device=self._device, generator=self._generator)


def philox4x32(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Philox4x32-10: `counter` uint32 (4, n), `key` two 32-bit words; returns uint32 (4, n).

    Source: Salmon et al. 2011, Parallel Random Numbers: As Easy as 1, 2, 3.
    """
    c0, c1, c2, c3 = (row.astype(np.uint64) for row in counter)
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * np.uint64(_M0), c2 * np.uint64(_M1)
        c0, c1, c2, c3 = (
            (p1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0), p1 & _MASK,
            (p0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1), p0 & _MASK,
        )
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3]).astype(np.uint32)


class PhiloxSource:
    """The normal numbers that torch.randn draws on a CUDA device, computed anywhere.

    The n-th draw uses counter (n, 0, element, 0) and key = seed; Box-Muller's sine half is kept.
    """

    def __init__(self, seed: int) -> None:
        seed = int(seed) & 0xFFFFFFFFFFFFFFFF
        self._key = (seed & 0xFFFFFFFF, seed >> 32)
        self._draws = 0

    def randn(self, shape: Sequence[int]) -> torch.Tensor:
        """The next tensor, float32, on the CPU."""
        count = math.prod(shape)
        counter = np.zeros((4, count), dtype=np.uint32)
        counter[0] = self._draws
        counter[2] = np.arange(count, dtype=np.uint32)
        self._draws += 1
        first, second, *_ = philox4x32(counter, self._key)
        u = first * _TWO_POW_MINUS_32 + _TWO_POW_MINUS_32 / 2
        turn = _TWO_POW_MINUS_32 * np.float32(6.2831855)
        radius = np.sqrt(-2.0 * np.log(u))
        return torch.from_numpy((radius * np.sin(second * turn + turn / 2)).astype(np.float32).reshape(tuple(shape)))


def source(kind: str, seed: int, device: torch.device) -> Source:
    """A stream for `kind`: GPU (the device's own generator), CPU, or NV (what a CUDA device would draw)."""
    if kind == "NV":
        return PhiloxSource(seed)
    return TorchSource(seed, torch.device("cpu") if kind == "CPU" or device.type == "mps" else device)


def slerp(weight: float, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Spherical interpolation of (C, H, W) noise along H, as the WebUI mixes variation seeds; a mix when parallel."""
    unit_low = low / torch.norm(low, dim=1, keepdim=True)
    unit_high = high / torch.norm(high, dim=1, keepdim=True)
    dot = (unit_low * unit_high).sum(1)
    if dot.mean() > 0.9995:
        return low * weight + high * (1 - weight)
    omega = torch.acos(dot)
    scale_low, scale_high = torch.sin((1.0 - weight) * omega), torch.sin(weight * omega)
    return (scale_low / omega.sin()).unsqueeze(1) * low + (scale_high / omega.sin()).unsqueeze(1) * high


def paste_centre(canvas: torch.Tensor, patch: torch.Tensor) -> torch.Tensor:
    """`canvas` (C, H, W) with `patch` (C, h, w) laid over its centre, whichever of them is larger."""
    def span(outer: int, inner: int) -> tuple[slice, slice]:
        offset = (outer - inner) // 2
        length = inner if offset >= 0 else inner + 2 * offset
        to, start = max(offset, 0), max(-offset, 0)
        return slice(to, to + length), slice(start, start + length)

    rows, from_rows = span(canvas.shape[1], patch.shape[1])
    columns, from_columns = span(canvas.shape[2], patch.shape[2])
    canvas = canvas.clone()
    canvas[:, rows, columns] = patch[:, from_rows, from_columns]
    return canvas


@dataclass(frozen=True)
class NoisePlan:
    """Everything that decides the noise of a batch."""

    seeds: tuple[int, ...]
    subseeds: tuple[int, ...] = ()
    subseed_strength: float = 0.0
    resize_from: tuple[int, int] = (0, 0)
    """(width, height) in pixels of the picture whose composition is wanted; 0 for none."""
    ensd: int = 0
    kind: str = "GPU"


class ImageNoise:
    """The start latent (first draw) and the noise of later steps, each image from its own seed.

    `shape` is (channels, height, width) of one latent. With ENSD the later draws come from seed + ENSD.
    Source: AUTOMATIC1111 WebUI 1.10.1, rng.py (order of draws).
    """

    def __init__(self, shape: Sequence[int], plan: NoisePlan, device: torch.device) -> None:
        self.shape = tuple(shape)
        self.plan = plan
        self.device = device
        self._streams = [self._source(seed) for seed in plan.seeds]
        self._started = False

    def _source(self, seed: int) -> Source:
        return source(self.plan.kind, seed, self.device)

    def next(self) -> torch.Tensor:
        """The next noise of the batch, (B, *shape) float32 on the device."""
        if self._started:
            noise = [stream.randn(self.shape) for stream in self._streams]
        else:
            self._started = True
            noise = [self._first(index) for index in range(len(self.plan.seeds))]
            if self.plan.ensd:
                self._streams = [self._source(seed + self.plan.ensd) for seed in self.plan.seeds]
        return torch.stack(noise).to(self.device)

    def _first(self, index: int) -> torch.Tensor:
        plan = self.plan
        width, height = plan.resize_from
        shape = self.shape
        if width > 0 and height > 0:
            shape = (shape[0], height // 8, width // 8)
        resized = shape != self.shape
        stream = self._source(plan.seeds[index]) if resized else self._streams[index]
        noise = stream.randn(shape)
        if plan.subseed_strength != 0 and plan.subseeds:
            noise = slerp(plan.subseed_strength, noise, self._source(plan.subseeds[index]).randn(shape))
        return paste_centre(self._streams[index].randn(self.shape), noise) if resized else noise
