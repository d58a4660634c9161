"""What a run starts from: the device, the defaults of the model's family, the model in memory."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.build import LoadedModel, load_model
from lib_sdtrain.model.checkpoint import Checkpoint, open_checkpoint
from lib_sdtrain.model.vae_file import VaeFile, open_vae
from lib_sdtrain.settings.layers import Layer, Resolved, resolve
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_embedding import EmbeddingSettings
from lib_sdtrain.settings.run_method import LORA, TrainGroup
from lib_sdtrain.train.families import family_of
from lib_sdtrain.train.frozen import narrows
from lib_sdtrain.train.optimizers.registry import PRODIGY
from lib_sdtrain.train.plan import Plan
from lib_sdtrain.train.soundness import check_model

LORA_RATE = 1e-4
PRODIGY_RATE = 1.0


def pick_device() -> str:
    """cuda where there is one, else Apple's mps, else cpu."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def family_layer(checkpoint: Checkpoint, device: str, settings: RunSettings) -> Layer:
    """The defaults that depend on the model, the device, the method and the optimizer."""
    values: dict[str, Any] = {"data.resolution": str(checkpoint.family.resolution)}
    if device == "cuda":
        values["train.mixed_precision"] = "fp16"
    values |= _rates(settings.method.kind, settings.train.optimizer)
    return Layer(f"{checkpoint.family.name} on {device}", values)


def _rates(kind: str, optimizer: str) -> dict[str, float]:
    """The learning rates that are not as for a whole model with AdamW, unless given. To Prodigy they are shares of the
    rate that it finds: where one group's is small, it learns next to nothing, and the rate is found too small.
    """
    if optimizer == PRODIGY:
        return {"train.learning_rate": PRODIGY_RATE, "embedding.learning_rate": PRODIGY_RATE}
    return {"train.learning_rate": LORA_RATE} if kind == LORA else {}


def stage_layers(before: RunSettings, layers: Sequence[Layer]) -> list[Layer]:
    """The layers of a stage behind `before`, of which the last is its own.

    Where it takes Prodigy up or leaves it, rates of the stage before would mean something else: what it does not say of
    them itself is as if none were given. Raises `UserError` with all mistakes.
    """
    stage = resolve(RunSettings, layers).settings
    if (stage.train.optimizer == PRODIGY) == (before.train.optimizer == PRODIGY):
        return list(layers)
    values: dict[str, Any] = {"train.learning_rate": TrainGroup().learning_rate,
                              "embedding.learning_rate": EmbeddingSettings().learning_rate}  # fmt: skip
    values |= dict.fromkeys(("train.text_encoder_lr", "train.text_encoder_2_lr", "train.token_embedding_lr"))
    values |= _rates(stage.method.kind, stage.train.optimizer)
    return [*layers[:-1], Layer(f"rates for {stage.train.optimizer}", values), layers[-1]]


def resolve_run(layers: Sequence[Layer], device: str) -> Resolved[RunSettings]:
    """The settings in force: defaults, then the family's of the checkpoint that the layers name, then the layers.

    Raises `UserError` with all mistakes; a checkpoint that cannot be opened is reported with the others.
    """
    first = resolve(RunSettings, layers)
    try:
        checkpoint = open_checkpoint(first.settings.model.checkpoint)
    except UserError:
        return first  # the plan reports it together with what else is wrong
    return resolve(RunSettings, [family_layer(checkpoint, device, first.settings), *layers])


def vae_source(plan: Plan) -> VaeFile | None:
    """The VAE's own file, None where the checkpoint's VAE is used."""
    return open_vae(plan.settings.model.vae, plan.family.vae) if plan.settings.model.vae else None


def load_for_training(plan: Plan, with_vae: bool = True) -> LoadedModel:
    """The model in fp32 on the run's device, predicting what the settings say, or what the weights tell.

    Without `with_vae` its VAE has no weights.

    Raises `UserError` when only the weights told that zero terminal SNR is out of the question, or they are no numbers.
    """
    aside = narrows(plan.settings) and not any(plan.missing_class)  # it draws no class pictures, and goes there narrow
    model = load_model(
        plan.checkpoint, plan.device, torch.float32, vae_source(plan), with_vae, "cpu" if aside else None
    )
    check_model(model)
    return replace(model, family=family_of(model.family, plan.settings.model))
