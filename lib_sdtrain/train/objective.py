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


def per_sample_mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each sample over channels and pixels, shape (B,); half precision is widened first."""
    wide = torch.promote_types(prediction.dtype, torch.float32)
    return (prediction.to(wide) - target.to(wide)).pow(2).flatten(1).mean(1)


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
