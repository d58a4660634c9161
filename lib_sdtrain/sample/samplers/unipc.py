"""UniPC: a predictor and a corrector of any order that share their evaluations, on the denoised picture.

Source: Zhao et al. 2023, UniPC (arXiv 2302.04867): UniP eq. 3, UniC eq. 5, B(h) variants and the varying-coefficient
form of appendix E. Time t runs over (0, 1]; lambda = log(alpha / sigma), h = lambda_t - lambda_0.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from lib_sdtrain.errors import UserError


class Path:
    """The variance-preserving path: log alpha is linear between the model's levels, t = (i + 1) / N."""

    def __init__(self, alphas_cumprod: torch.Tensor) -> None:
        self.count = len(alphas_cumprod)
        self._log_alpha = (0.5 * alphas_cumprod.float().log()).double().numpy()
        self._t = torch.linspace(0.0, 1.0, self.count + 1)[1:].double().numpy()

    def log_alpha(self, t: float) -> float:
        """log of the factor of x0 at t."""
        return float(np.interp(t, self._t, self._log_alpha))

    def alpha(self, t: float) -> float:
        """The factor of x0 at t."""
        return math.exp(self.log_alpha(t))

    def sigma(self, t: float) -> float:
        """The factor of the noise at t."""
        return math.sqrt(-math.expm1(2 * self.log_alpha(t)))

    def half_log_snr(self, t: float) -> float:
        """lambda(t)."""
        return self.log_alpha(t) - math.log(self.sigma(t))

    def time(self, half_log_snr: float) -> float:
        """The inverse of `half_log_snr`."""
        log_alpha = -0.5 * np.logaddexp(0.0, -2.0 * half_log_snr)
        return float(np.interp(log_alpha, self._log_alpha[::-1], self._t[::-1]))

    def model_time(self, t: float) -> float:
        """The model's timestep at t, in float32 as the WebUI computes it."""
        return ((torch.tensor(t, dtype=torch.float32) - 1.0 / self.count) * 1000.0).item()


@dataclass(frozen=True)
class UniPCOptions:
    """`variant`: bh1, bh2 or vary_coeff; `skip_type`: how the times are spread."""

    variant: str = "bh1"
    skip_type: str = "time_uniform"
    order: int = 3
    lower_order_final: bool = True


def spread(path: Path, skip_type: str, start: float, steps: int) -> list[float]:
    """steps + 1 times from `start` down to 1 / N: time_uniform, time_quadratic or logSNR."""
    end = 1.0 / path.count
    if skip_type == "logSNR":
        lambdas = torch.linspace(path.half_log_snr(start), path.half_log_snr(end), steps + 1)
        return [path.time(value) for value in lambdas.tolist()]
    if skip_type == "time_quadratic":
        return torch.linspace(math.sqrt(start), math.sqrt(end), steps + 1).pow(2).tolist()
    if skip_type == "time_uniform":
        return torch.linspace(start, end, steps + 1).tolist()
    raise UserError(f"{skip_type!r} is not one of time_uniform, time_quadratic, logSNR", where="uni_pc_skip_type")


def _h_phis(hh: float, count: int) -> list[float]:
    """h phi_1(h), h phi_2(h), ... with phi_k+1(h) = (phi_k(h) - 1/k!) / h."""
    values, factorial = [math.expm1(hh)], 1
    for k in range(1, count):
        values.append(values[-1] / hh - 1 / factorial)
        factorial *= k + 1
    return values


@dataclass(frozen=True)
class _Update:
    """One step from the latest known point (index 0) to t. `base` is the first-order part."""

    base: torch.Tensor
    model_0: torch.Tensor
    differences: list[torch.Tensor]
    ratios: list[float]
    hh: float
    alpha: float

    @property
    def order(self) -> int:
        return len(self.ratios)

    def _weights_b(self, variant: str, count: int) -> tuple[np.ndarray, float]:
        """Weights of the first `count` ratios in the B(h) forms, and alpha · B(h)."""
        b_h = self.hh if variant == "bh1" else math.expm1(self.hh)
        scale = self.alpha * b_h
        if (count, self.order) in ((1, 1), (1, 2)):
            return np.array([0.5]), scale
        h_phis = _h_phis(self.hh, count + 1)[1:]
        b = [h_phi * math.factorial(i) / b_h for i, h_phi in enumerate(h_phis, start=1)]
        ratios = np.array(self.ratios[:count])
        return np.linalg.solve(np.stack([ratios**i for i in range(count)]), np.array(b)), scale

    def _weights_vary(self, count: int) -> tuple[np.ndarray, float]:
        ratios = np.array(self.ratios[:count])
        inverse = np.linalg.inv(np.stack([ratios**k / math.factorial(k + 1) for k in range(count)], axis=1))
        h_phis = np.array(_h_phis(self.hh, self.order + 1)[1:])
        return inverse, h_phis

    def predicted(self, variant: str) -> torch.Tensor:
        """UniP."""
        if not self.differences:
            return self.base
        return self.base - self._combined(variant, len(self.differences), self.differences)

    def corrected(self, variant: str, model_t: torch.Tensor) -> torch.Tensor:
        """UniC."""
        return self.base - self._combined(variant, self.order, [*self.differences, model_t - self.model_0])

    def _combined(self, variant: str, count: int, differences: list[torch.Tensor]) -> torch.Tensor:
        if variant == "vary_coeff":
            inverse, h_phis = self._weights_vary(count)
            weights = self.alpha * self._vary_rows(inverse, h_phis, count)
        else:
            weights, scale = self._weights_b(variant, count)
            weights = scale * weights
        return sum(float(weight) * difference for weight, difference in zip(weights, differences, strict=True))

    def _vary_rows(self, inverse: np.ndarray, h_phis: np.ndarray, count: int) -> np.ndarray:
        """Rows of the inverse weighted by h phi_k+1.

        The newest difference of the corrector takes its weight from the last row but one, as the authors' code does.
        """
        known = self.order - 1
        weights = (h_phis[:known, None] * inverse[:known, :]).sum(0)
        if count == self.order:
            weights = np.append(weights[:-1], h_phis[self.order - 1] * inverse[max(known - 1, 0), -1])
        return weights


def _update(
    path: Path, x: torch.Tensor, known: list[tuple[float, torch.Tensor]], t: float, order: int
) -> _Update:
    """`known`: (time, denoised), latest first."""
    t_0, model_0 = known[0]
    lambda_0 = path.half_log_snr(t_0)
    h = path.half_log_snr(t) - lambda_0
    ratios = [(path.half_log_snr(time) - lambda_0) / h for time, _ in known[1:order]]
    differences = [(model - model_0) / ratio for (_, model), ratio in zip(known[1:order], ratios, strict=True)]
    alpha = path.alpha(t)
    base = path.sigma(t) / path.sigma(t_0) * x - alpha * math.expm1(-h) * model_0
    return _Update(base, model_0, differences, [*ratios, 1.0], -h, alpha)


def unipc(
    model: Callable[[torch.Tensor, float], torch.Tensor], x: torch.Tensor, steps: int, alphas_cumprod: torch.Tensor,
    options: UniPCOptions, start: float = 1.0,
) -> torch.Tensor:
    """`steps` steps from time `start`; `model`(x, timestep) gives the noise. One evaluation a step.

    Raises `UserError` when there are fewer steps than the order.
    """
    if steps < options.order:
        raise UserError(f"UniPC of order {options.order} needs at least as many steps, not {steps}", where="steps",
                        fix="use more steps or a lower uni_pc_order")
    path = Path(alphas_cumprod)

    def denoised(x: torch.Tensor, t: float) -> torch.Tensor:
        return (x - path.sigma(t) * model(x, path.model_time(t))) / path.alpha(t)

    times = spread(path, options.skip_type, start, steps)
    known = [(times[0], denoised(x, times[0]))]
    for step, t in enumerate(times[1:], start=1):
        order = min(options.order, step)
        if options.lower_order_final and step >= options.order:
            order = min(order, steps + 1 - step)
        update = _update(path, x, known, t, order)
        x = update.predicted(options.variant)
        if step < steps:
            model_t = denoised(x, t)
            x = update.corrected(options.variant, model_t)
            known = [(t, model_t), *known[: options.order - 1]]
    return x
