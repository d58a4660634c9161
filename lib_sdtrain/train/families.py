"""What a run makes of its checkpoint's family: what it predicts, on which schedule, and how the result says so."""
from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lib_sdtrain import textfiles
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.model.checkpoint import Checkpoint
from lib_sdtrain.model.family import V_MARKER, V_PREDICTION, Family
from lib_sdtrain.model.ldm_yaml import describe
from lib_sdtrain.settings.run import ModelSettings, RunSettings
from lib_sdtrain.train.lora_choice import check_layers

TRAINABLE = ("base", "inpainting")


def family_of(family: Family, model: ModelSettings) -> Family:
    """The family as it is trained. Raises `UserError` for zero terminal SNR where the noise is predicted."""
    family = family.with_prediction_type(model.prediction_type)
    if model.zero_terminal_snr:
        family = replace(family, schedule=replace(family.schedule, zero_terminal_snr=True))
    noise_known = not family.prediction_guessed and family.prediction_type != V_PREDICTION
    if family.schedule.zero_terminal_snr and noise_known:
        raise UserError(
            "at the last step of a zero-terminal-SNR schedule there is nothing to tell the noise from",
            where="model.zero_terminal_snr", fix="set model.prediction_type to v_prediction",
        )
    return family


def check_family(family: Family, settings: RunSettings, problems: Problems) -> None:
    """Add what this family cannot do to `problems`."""
    if family.variant not in TRAINABLE:
        problems.add(f"{family.variant} models cannot be trained", where="model.checkpoint", fix="give another one")
    if settings.method.train_text_encoder_2 and not family.is_sdxl:
        problems.add(
            f"{family.name} has one text encoder", where="method.train_text_encoder_2", fix="set it to false"
        )
    check_layers(family, settings.method, problems)
    try:
        trained = family_of(family, settings.model)
    except UserError as error:
        problems.absorb(error)
        return
    if settings.loss.scale_v_pred_loss_like_noise_pred and not trained.prediction_guessed \
            and trained.prediction_type != V_PREDICTION:
        problems.add(
            "the model predicts the noise already", where="loss.scale_v_pred_loss_like_noise_pred",
            fix="set it to false",
        )


def markers(trained: Family, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Empty tensors by which a file says what no shape tells; only those that its parent has not.

    SDXL says by one that it predicts v; zero terminal SNR has no other sign in any family.
    """
    said = {*checkpoint.file_keys, *((V_MARKER,) if checkpoint.family.prediction_type == V_PREDICTION else ())}
    return {name: torch.tensor([]) for name in trained.markers if name not in said}


def config_text(trained: Family, checkpoint: Checkpoint) -> str | None:
    """The child's `.yaml`: its parent's, or one that says what the child predicts where its parent predicts other."""
    known = checkpoint.family
    if trained.is_sdxl or known.prediction_guessed or trained.prediction_type == known.prediction_type:
        return checkpoint.config_text
    if checkpoint.config is None:
        return describe(trained)
    described = textfiles.read_mapping(checkpoint.config)
    described["model"]["params"]["parameterization"] = "v" if trained.prediction_type == V_PREDICTION else "eps"
    return textfiles.write_yaml(described)
