"""Brownian-tree noise: the noise between two sigmas depends on the seed alone, not on the steps taken.

The path of W over [sigma_min, sigma_max] is refined by halving; the noise of every node is drawn from a
seed that numpy's SeedSequence spawns from the image's seed and the node's place. The numbers equal those
of torchsde.BrownianTree 0.2.6 (halfway tree, tolerance 1e-6, pool of 24), which k-diffusion's SDE samplers use.
Source: Li et al. 2020, Scalable Gradients for SDEs; Kidger et al. 2021, Efficient Gradients for Neural SDEs.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

_DIGITS = 6
_POOL = 24
_CACHED = 96

Draw = Callable[[int, tuple[int, ...]], torch.Tensor]
"""draw(seed, shape): the first standard normal tensor of a seed."""


class _Node(NamedTuple):
    """An interval [start, end] at `depth` halvings, `place` from the left."""

    start: float
    end: float
    place: int
    depth: int

    @property
    def middle(self) -> float:
        return round(0.5 * (self.start + self.end), _DIGITS)

    def halves(self) -> tuple[_Node, _Node]:
        left = _Node(self.start, self.middle, 2 * self.place, self.depth + 1)
        return left, _Node(self.middle, self.end, 2 * self.place + 1, self.depth + 1)


class BrownianTree:
    """W of one image between two times in [start, end]."""

    def __init__(self, start: float, end: float, seed: int, shape: Sequence[int], draw: Draw) -> None:
        self._seed = int(seed)
        self._shape = tuple(shape)
        self._draw = draw
        self._root = _Node(round(start, _DIGITS), round(end, _DIGITS), 0, 0)
        entropy = np.random.SeedSequence(self._seed, pool_size=_POOL).generate_state(1)[0]
        self._whole = draw(int(entropy), self._shape) * math.sqrt(end - start)
        self._known: dict[_Node, torch.Tensor] = {}

    def __call__(self, ta: float, tb: float) -> torch.Tensor:
        """W(tb) - W(ta) for ta <= tb, (C, H, W); times outside of the tree count as its ends."""
        low, high = (round(min(max(t, self._root.start), self._root.end), _DIGITS) for t in (ta, tb))
        if low >= high:
            return torch.zeros_like(self._whole)
        pieces = self._cover(self._root, self._whole, low, high)
        total = next(pieces)
        for piece in pieces:
            total = total + piece
        return total

    def _cover(self, node: _Node, increment: torch.Tensor, low: float, high: float) -> Iterator[torch.Tensor]:
        """Increments of the largest nodes that make up [low, high] inside of `node`, from left to right."""
        if low == node.start and high == node.end:
            yield increment
            return
        left, right = node.halves()
        left_increment = self._left_increment(node, increment)
        if low < left.end:
            yield from self._cover(left, left_increment, low, min(high, left.end))
        if high > left.end:
            yield from self._cover(right, increment - left_increment, max(low, left.end), high)

    def _left_increment(self, node: _Node, increment: torch.Tensor) -> torch.Tensor:
        """The left half of a Brownian bridge: mean W·a/h, variance a·b/h, with a + b = h."""
        if node not in self._known:
            while len(self._known) >= _CACHED:
                del self._known[next(iter(self._known))]
            a, b, inverse = node.middle - node.start, node.end - node.middle, 1 / (node.end - node.start)
            entropy = np.random.SeedSequence(self._seed, spawn_key=(node.place, node.depth), pool_size=_POOL)
            noise = self._draw(int(entropy.generate_state(1)[0]), self._shape)
            self._known[node] = a * increment * inverse + math.sqrt(a * b * inverse) * noise
        return self._known[node]


class BrownianNoise:
    """noise(sigma, sigma_next): unit-variance noise for a batch, one tree an image.

    `shape` is (C, H, W); `draw` decides on which device the numbers are made. `joined`: one tree for the whole batch,
    and `shape` is the batch's.
    """

    def __init__(
        self, seeds: Sequence[int], shape: Sequence[int], sigmas: torch.Tensor, draw: Draw, *, joined: bool = False
    ) -> None:
        self._joined = joined
        positive = sigmas[sigmas > 0]
        low, high = float(positive.min()), float(sigmas.max())
        self._trees = [BrownianTree(low, high, seed, shape, draw) for seed in seeds]

    def __call__(self, sigma: float, sigma_next: float) -> torch.Tensor:
        """The noise that belongs to the step from `sigma` to `sigma_next`, (B, C, H, W)."""
        low, high, sign = (sigma, sigma_next, 1) if sigma < sigma_next else (sigma_next, sigma, -1)
        increments = torch.stack([tree(low, high) for tree in self._trees])
        increments = increments[0] if self._joined else increments
        return increments * (sign / math.sqrt(high - low))
