"""The diffusion objective: tensors in, tensors out.

Shapes: latents, noise, predictions and targets (B, 4, h, w); timesteps (B,) int64 and `alphas_cumprod` (1000,), both
on the CPU, where coefficients are worked out in double precision.
"""
from __future__ import annotations

import torch
from torch import Tensor


def _broadcast(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).to(like.device).reshape(-1, *([1] * (like.dim() - 1)))


def add_noise(latents: Tensor, noise: Tensor, alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise (Ho et al. 2020, eq. 4)."""
    alpha = alphas_cumprod[timesteps].double()
    return _broadcast(alpha.sqrt(), latents) * latents + _broadcast((1 - alpha).sqrt(), latents) * noise


def velocity(latents: Tensor, noise: Tensor, alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """v_t = sqrt(a_t) noise - sqrt(1 - a_t) x_0 (Salimans & Ho 2022, appendix D)."""
    alpha = alphas_cumprod[timesteps].double()
    return _broadcast(alpha.sqrt(), latents) * noise - _broadcast((1 - alpha).sqrt(), latents) * latents


def target_of(
    prediction_type: str, latents: Tensor, noise: Tensor, alphas_cumprod: Tensor, timesteps: Tensor
) -> Tensor:
    """What the model should predict: the noise (`epsilon`) or the velocity (`v_prediction`)."""
    if prediction_type == "v_prediction":
        return velocity(latents, noise, alphas_cumprod, timesteps)
    return noise


def errors(kind: str, prediction: Tensor, target: Tensor, c: Tensor | None = None) -> Tensor:
    """The error of every value, in the shape of the latents; half precision is widened first.

    With d = prediction - target and c (B,): mse d^2, l1 |d|, huber 2c (sqrt(d^2 + c^2) - c) and smooth_l1
    2 (sqrt(d^2 + c^2) - c), the smooth forms of kohya's scripts (pseudo-Huber, Charbonnier et al. 1997).
    """
    wide = torch.promote_types(prediction.dtype, torch.float32)
    difference = prediction.to(wide) - target.to(wide)
    if kind == "mse":
        return difference.pow(2)
    if kind == "l1":
        return difference.abs()
    width = _broadcast(c, difference)
    bend = 2 * ((difference.pow(2) + width**2).sqrt() - width)
    return bend * width if kind == "huber" else bend


def huber_widths(schedule: str, c: float, alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """Huber's c at each timestep, (B,), as kohya's scripts have it; sigma^2 = (1 - a) / a, T steps.

    snr: (1 - c) / (1 + sigma)^2 + c. exponential: c^(t / T). constant: c.
    """
    if schedule == "snr":
        alpha = alphas_cumprod[timesteps].double()
        return (1 - c) / (1 + ((1 - alpha) / alpha).sqrt()) ** 2 + c
    if schedule == "exponential":
        return c ** (timesteps.double() / len(alphas_cumprod))
    return torch.full(timesteps.shape, c, dtype=torch.float64)


def min_snr_weights(alphas_cumprod: Tensor, timesteps: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """Min-SNR-gamma weights (Hang et al. 2023), shape (B,).

    epsilon: min(SNR, gamma) / SNR. v_prediction: min(SNR, gamma) / (SNR + 1). A step without signal
    (zero terminal SNR) has weight 1 for epsilon, the limit of the formula.
    """
    alpha = alphas_cumprod[timesteps].double()
    snr = alpha / (1 - alpha)
    capped = snr.clamp(max=gamma)
    if prediction_type == "v_prediction":
        return (capped / (snr + 1)).float()
    return torch.where(snr > 0, capped / snr, torch.ones_like(snr)).float()


LARGEST_SNR = 1000.0


def _snr(alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    alpha = alphas_cumprod[timesteps].double()
    return (alpha / (1 - alpha)).clamp(max=LARGEST_SNR)


def debiased_weights(alphas_cumprod: Tensor, timesteps: Tensor, prediction_type: str) -> Tensor:
    """Debiased estimation (Yu et al. 2023), shape (B,): 1 / sqrt(SNR), for v_prediction 1 / (SNR + 1); SNR <= 1000."""
    snr = _snr(alphas_cumprod, timesteps)
    return (1 / (snr + 1) if prediction_type == "v_prediction" else snr.rsqrt()).float()


def noise_like_weights(alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """SNR / (SNR + 1), shape (B,): turns the error of v into that of the noise; SNR <= 1000."""
    snr = _snr(alphas_cumprod, timesteps)
    return (snr / (snr + 1)).float()


def reduce_losses(per_sample: Tensor, is_class: Tensor, prior_loss_weight: float, reduction: str) -> Tensor:
    """One loss from those of instance samples and class samples (`is_class`, bool, both (B,)).

    `sum`: mean(instance) + weight * mean(class), as diffusers and the original DreamBooth code.
    `mean`: the mean over all of them, class samples weighted, as kohya; at equal numbers and weight 1 that is
    half of `sum`, and so are its gradients.
    """
    weights = torch.where(is_class, prior_loss_weight, 1.0).to(per_sample)
    if reduction == "mean":
        return (per_sample * weights).mean()
    loss = per_sample[~is_class].mean()
    if bool(is_class.any()):
        loss = loss + prior_loss_weight * per_sample[is_class].mean()
    return loss


def loss_shares(is_class: Tensor, prior_loss_weight: float, reduction: str) -> Tensor:
    """What each sample's loss is multiplied with in `reduce_losses`, shape (B,): their products add up to it."""
    weights = torch.where(is_class, prior_loss_weight, 1.0)
    if reduction == "mean":
        return weights / len(is_class)
    return torch.where(is_class, weights / is_class.sum().clamp(min=1), weights / (~is_class).sum().clamp(min=1))
