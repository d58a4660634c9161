"""Why a step found no numbers, as far as it can be told, and what to do about it."""
from __future__ import annotations

from collections.abc import Mapping

from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_method import EMBEDDING, FULL, LORA
from lib_sdtrain.train.batches import Batch
from lib_sdtrain.train.optimizers.registry import ADAMW, TOKENS
from lib_sdtrain.train.soundness import all_finite

HIGH_RATES = {FULL: 1e-4, LORA: 1e-2, EMBEDDING: 1e-1}
"""With AdamW, many times what is usual (1e-6, 1e-4, 5e-3)."""
LIKE_ADAMW = (ADAMW, "adamw8bit", "schedule_free")


def likely_cause(settings: RunSettings, batch: Batch, rates: Mapping[str, float]) -> str:
    """What to change so that a step finds numbers: by its last micro-batch and the learning rates by group."""
    train = settings.train
    for prompt, latents in zip(batch.prompts, batch.latents, strict=True):
        if not all_finite([latents]):
            return (f"the latents of the picture with the caption {prompt!r} are no numbers: delete the cached "
                    "latents, and begin anew with another model.vae")  # fmt: skip
    for name, rate in rates.items():
        words = name == EMBEDDING or name.endswith(f".{TOKENS}")
        limit = HIGH_RATES[EMBEDDING if words else settings.method.kind]
        if train.optimizer in LIKE_ADAMW and rate > limit:
            return f"likely the learning rate of {name}: {rate:g}, where more than {limit:g} ruins a model; lower it"
    if train.mixed_precision == "fp16":
        return "likely fp16, which holds nothing over 65504: choose train.mixed_precision bf16 or no"
    if not train.max_grad_norm:
        return "likely one step that went too far: set train.max_grad_norm to 1, or lower train.learning_rate"
    return "lower train.learning_rate"
