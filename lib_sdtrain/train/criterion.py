"""What a run minimises: the objective's formulas put together as the settings say."""
from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lib_sdtrain.settings.run_method import LossSettings
from lib_sdtrain.train import objective
from lib_sdtrain.train.batches import Batch


@dataclass(frozen=True)
class Criterion:
    """The loss of a model that predicts `prediction_type` on the schedule `alphas_cumprod` (T,)."""

    settings: LossSettings
    prediction_type: str
    alphas_cumprod: Tensor

    def noisy(self, batch: Batch, clean: Tensor) -> Tensor:
        """The noisy latents of a batch whose clean ones are `clean`, on their device."""
        added = batch.noise if batch.added is None else batch.added
        return objective.add_noise(clean, added.to(clean.device), self.alphas_cumprod, batch.timesteps)

    def target(self, batch: Batch, clean: Tensor) -> Tensor:
        """What the model should have answered."""
        noise = batch.noise.to(clean.device)
        return objective.target_of(self.prediction_type, clean, noise, self.alphas_cumprod, batch.timesteps)

    def per_sample(
        self, prediction: Tensor, target: Tensor, timesteps: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """The weighted loss of each sample, (B,); weights of timesteps multiply, as in kohya's scripts.

        `mask` (B, 1, h, w) multiplies the errors before their mean over the whole picture (kohya's masked loss).
        """
        chosen = self.settings
        widths = objective.huber_widths(chosen.huber_schedule, chosen.huber_c, self.alphas_cumprod, timesteps)
        errors = objective.errors(chosen.kind, prediction, target, widths)
        losses = (errors if mask is None else errors * mask.to(errors)).flatten(1).mean(1)
        for weights in self._weights(timesteps):
            losses = losses * weights.to(losses)
        return losses

    def _weights(self, timesteps: Tensor) -> list[Tensor]:
        chosen, table, kind = self.settings, self.alphas_cumprod, self.prediction_type
        found = []
        if chosen.min_snr_gamma:
            found.append(objective.min_snr_weights(table, timesteps, chosen.min_snr_gamma, kind))
        if chosen.scale_v_pred_loss_like_noise_pred:
            found.append(objective.noise_like_weights(table, timesteps))
        if chosen.debiased_estimation:
            found.append(objective.debiased_weights(table, timesteps, kind))
        return found

    def total(self, prediction: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """One loss for the batch, with its graph."""
        losses = self.per_sample(prediction, target, batch.timesteps, batch.mask) * batch.weights.to(prediction.device)
        return objective.reduce_losses(
            losses, batch.is_class.to(losses.device), self.settings.prior_loss_weight, self.settings.prior_reduction
        )

    def shares(self, batch: Batch) -> Tensor:
        """What each sample's loss counts in `total`, (B,)."""
        chosen = self.settings
        return batch.weights * objective.loss_shares(batch.is_class, chosen.prior_loss_weight, chosen.prior_reduction)
