"""DPM-Solver in its fast (fixed steps of mixed order) and adaptive forms, on the noise, in t = -log sigma.

Source: Lu et al. 2022, DPM-Solver (arXiv 2206.00927), algorithms 1-3 and the adaptive scheme of appendix C; ancestral
noise and the PID step control as in k-diffusion. Times are float32 scalars: the adaptive scheme feeds every rounding
back into the next step, so another precision would take other steps.
"""
from __future__ import annotations

import math

import torch
from torch import Tensor

from lib_sdtrain.sample.samplers.steps import Denoise, Noise, ancestral


def _sigma(t: Tensor) -> Tensor:
    return t.neg().exp()


def _time(sigma: float) -> Tensor:
    return torch.tensor(sigma, dtype=torch.float32).log().neg()


class _Step:
    """Solver steps from one point (x, t); slopes already computed there are used again."""

    def __init__(self, model: Denoise, x: Tensor, t: Tensor) -> None:
        self.model, self.x, self.t = model, x, t
        self._known: dict[str, Tensor] = {}

    def _eps(self, name: str, x: Tensor, t: Tensor) -> Tensor:
        if name not in self._known:
            sigma = _sigma(t)
            self._known[name] = (x - self.model(x, sigma.item())) / sigma
        return self._known[name]

    @property
    def eps(self) -> Tensor:
        return self._eps("start", self.x, self.t)

    def _first(self, t: Tensor, h: Tensor) -> Tensor:
        return self.x - _sigma(t) * h.expm1() * self.eps

    def order_1(self, t_next: Tensor) -> Tensor:
        """DPM-Solver-1 (DDIM)."""
        return self._first(t_next, t_next - self.t)

    def order_2(self, t_next: Tensor, r1: float = 1 / 2) -> Tensor:
        """DPM-Solver-2 through t + r1 h."""
        h = t_next - self.t
        s1 = self.t + r1 * h
        eps_r1 = self._eps("r1", self._first(s1, r1 * h), s1)
        return self._first(t_next, h) - _sigma(t_next) / (2 * r1) * h.expm1() * (eps_r1 - self.eps)

    def order_3(self, t_next: Tensor, r1: float = 1 / 3, r2: float = 2 / 3) -> Tensor:
        """DPM-Solver-3 through t + r1 h and t + r2 h."""
        h = t_next - self.t
        s1, s2 = self.t + r1 * h, self.t + r2 * h
        eps_r1 = self._eps("r1", self._first(s1, r1 * h), s1)
        second = (r2 * h).expm1() / (r2 * h) - 1
        u2 = self._first(s2, r2 * h) - _sigma(s2) * (r2 / r1) * second * (eps_r1 - self.eps)
        eps_r2 = self._eps("r2", u2, s2)
        return self._first(t_next, h) - _sigma(t_next) / r2 * (h.expm1() / h - 1) * (eps_r2 - self.eps)


def _down(t: Tensor, t_next: Tensor, t_end: Tensor, eta: float) -> tuple[Tensor, Tensor | float]:
    """(t to solve to, sigma of the noise to add after) of an ancestral step."""
    if not eta:
        return t_next, 0.0
    sigma_down, _ = ancestral(_sigma(t), _sigma(t_next), eta)
    t_down = torch.minimum(t_end, torch.as_tensor(sigma_down).log().neg())
    return t_down, (_sigma(t_next) ** 2 - _sigma(t_down) ** 2).clamp(min=0.0).sqrt()


def fast_orders(nfe: int) -> list[int]:
    """Orders of the steps for `nfe` evaluations: as many of order 3 as fit."""
    whole = nfe // 3 + 1
    return [3] * (whole - 2) + [2, 1] if nfe % 3 == 0 else [3] * (whole - 1) + [nfe % 3]


def dpm_fast(
    model: Denoise, x: Tensor, span: tuple[float, float], noise: Noise, *,
    nfe: int, eta: float = 0.0, s_noise: float = 1.0,
) -> Tensor:
    """`nfe` evaluations from sigma_max to sigma_min, given as `span` = (sigma_min, sigma_max)."""
    t_end, t_start = (_time(sigma) for sigma in span)
    orders = fast_orders(nfe)
    times = torch.linspace(t_start.item(), t_end.item(), len(orders) + 1)
    for order, t, t_next in zip(orders, times[:-1], times[1:], strict=True):
        t_down, sigma_up = _down(t, t_next, t_end, eta)
        step = _Step(model, x, t)
        x = (step.order_1, step.order_2, step.order_3)[order - 1](t_down)
        x = x + noise(_sigma(t).item(), _sigma(t_next).item()) * (sigma_up * s_noise)
    return x


class _StepSize:
    """Proposes h from the error by an integral controller; a step is accepted when h would not shrink below 81 %."""

    def __init__(self, h: float, order: float, accept_safety: float = 0.81) -> None:
        self.h = h
        self._exponent = 1.0 / order
        self._safety = accept_safety

    def accepts(self, error: float) -> bool:
        factor = 1 + math.atan((1 / (error + 1e-8)) ** self._exponent - 1)
        self.h *= factor
        return factor >= self._safety


def dpm_adaptive(
    model: Denoise, x: Tensor, span: tuple[float, float], noise: Noise, *, eta: float = 0.0, s_noise: float = 1.0
) -> Tensor:
    """DPM-Solver-23: orders 2 and 3 side by side decide the step size (rtol 0.05, atol 0.0078).

    The error is measured over the whole batch, so a picture may depend on its neighbours.
    """
    rtol, atol = 0.05, 0.0078
    t_end, t = (_time(sigma) for sigma in span)
    size, x_prev = _StepSize(0.05, 1.5 if eta else 3), x
    while t < t_end - 1e-5:
        t_next = torch.minimum(t_end, t + size.h)
        t_down, sigma_up = _down(t, t_next, t_end, eta)
        step = _Step(model, x, t)
        low, high = step.order_2(t_down, r1=1 / 3), step.order_3(t_down)
        tolerance = (rtol * torch.maximum(low.abs(), x_prev.abs())).clamp(min=atol)
        error = (torch.linalg.norm((low - high) / tolerance) / x.numel() ** 0.5).item()
        if size.accepts(error):
            x_prev = low
            x = high + noise(_sigma(t).item(), _sigma(t_next).item()) * (sigma_up * s_noise)
            t = t_next
    return x
