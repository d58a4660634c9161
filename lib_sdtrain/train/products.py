"""Products of matrices in 32 bits on a CPU: which library computes them.

torch asks MKL, which leaves half of what AMD's processors can do with AVX-512 undone: 2048 x 2048, two cores of a
Zen 5, 200 GFLOP/s against 430 by oneDNN. torch has oneDNN do it where products may be rounded to bfloat16. oneDNN then
does so on processors with units for it alone (Intel's AMX); on others it computes in 32 bits as before. That is not
believed but tried, on the processor at hand.
"""
from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

LARGE = 100_000_000
"""Weights of a UNet from which on it pays: oneDNN takes longer to begin a product, which small ones do not make up."""
EXACT = 2e-6
"""Of a product's norm: what rounding in 32 bits may add up to. Rounding to bfloat16 makes 2e-3, to TF32 3e-4."""
TRIED = ((32, 1280, 1280), (154, 768, 3072), (8, 11520, 1280), (1280, 32, 2560))
"""Rows, what is summed over, and columns of products as they occur in a UNet over few pixels."""
BFLOAT = "bf16"


class Products:
    """`with products():` has oneDNN compute products in 32 bits, where that is the faster and as exact: for a UNet of
    so many `weights` on `device`. What is computed elsewhere, drawing pictures for one, stays as it is everywhere.

    Meanwhile it is so in the whole process. Nothing changes where torch is older than 2.9.
    """

    def __init__(self, device: str, weights: int) -> None:
        possible = device == "cpu" and hasattr(torch.backends.mkldnn, "matmul")
        self.chosen = possible and weights >= LARGE and mkl_is_slow()
        with self():
            self.chosen = self.chosen and exact()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        if not self.chosen:
            yield
            return
        options = torch.backends.mkldnn.matmul
        before, options.fp32_precision = options.fp32_precision, BFLOAT
        try:
            yield
        finally:
            options.fp32_precision = before


def mkl_is_slow() -> bool:
    """Whether this is one of AMD's processors with AVX-512."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    facts = Path("/proc/cpuinfo")
    return "AuthenticAMD" in (facts.read_text(encoding="utf-8") if facts.exists() else platform.processor())


def exact() -> bool:
    """Whether products come out as well as rounding in 32 bits lets them."""
    chance = torch.Generator().manual_seed(0)
    return all(
        error(torch.randn(rows, over, generator=chance), torch.randn(over, columns, generator=chance)) < EXACT
        for rows, over, columns in TRIED
    )


def error(first: Tensor, second: Tensor) -> float:
    """Of the product of two matrices, as a share of its norm."""
    whole = first.double() @ second.double()
    return float((first @ second - whole).norm() / whole.norm())
