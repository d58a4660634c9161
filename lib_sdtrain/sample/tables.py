"""The noise table of a model."""
from __future__ import annotations

import torch

from lib_sdtrain.model.build import LoadedModel
from lib_sdtrain.model.schedule import alphas_cumprod, rescale_zero_terminal_snr

_KEY = "alphas_cumprod"
_LAST = 4.8973451890853435e-08


def alphas_cumprod_of(model: LoadedModel) -> torch.Tensor:
    """(1000,) float32: the file's own table where it carries one (SD1, SD2), else the family's.

    With zero terminal SNR either is rescaled, as in training; a file's own may have been already. The last entry is
    then the WebUI's smallest number instead of 0, because samplers divide by it.
    """
    family, checkpoint = model.family, model.checkpoint
    schedule = family.schedule
    if not family.is_sdxl and checkpoint is not None and _KEY in checkpoint.file_keys:
        table = checkpoint.tensor(_KEY).float().cpu()
    else:
        table = alphas_cumprod(schedule.timesteps, schedule.linear_start, schedule.linear_end)
    if table[-1] <= _LAST:
        return torch.cat([table[:-1], torch.tensor([_LAST])])
    return rescale_zero_terminal_snr(table, last=_LAST) if schedule.zero_terminal_snr else table
