"""How much of a run's main memory may be taken from the system while the run begins."""
from __future__ import annotations

from lib_sdtrain.model.keys import UNET, VAE
from lib_sdtrain.train.memory.parts import (
    average_bytes,
    drawing_bytes,
    draws_class,
    prepared_encoder_bytes,
    target_area,
    trained_weights,
    weight_bytes,
)
from lib_sdtrain.train.memory.table import ENCODE, other_peak
from lib_sdtrain.train.optimizers.registry import ADAMW, moment_bytes
from lib_sdtrain.train.plan import Plan
from lib_sdtrain.train.text_cache import frozen_encoders


def held_from_the_start(plan: Plan) -> int:
    """Bytes of the heap that a run in main memory holds from its loading to its end: the UNet and the average; 0 where
    training is on another device.
    """
    return weight_bytes(plan, {UNET}) + average_bytes(plan) if plan.device == "cpu" else 0


def zeroed_from_the_start(plan: Plan) -> int:
    """Bytes of main memory that moments take which begin as zeros in a place of their own: those of AdamW."""
    train = plan.settings.train
    elsewhere = plan.device != "cpu" or train.optimizer != ADAMW or train.optimizer_args.get("amsgrad")
    return 0 if elsewhere else trained_weights(plan) * moment_bytes(train.optimizer)


def zeroed_ahead(plan: Plan) -> int:
    """How many of `zeroed_from_the_start` may be taken at once, so that no more is held before training than in it."""
    return max(0, zeroed_from_the_start(plan) - used_before_training(plan))


def used_before_training(plan: Plan) -> int:
    """Bytes of what encodes pictures and captions, and draws those of the class: it is there before the moments are."""
    area = target_area(plan)
    working = drawing_bytes(plan, area) if draws_class(plan) else other_peak(plan.family, ENCODE, area)
    return weight_bytes(plan, {VAE, *frozen_encoders(plan)}) + prepared_encoder_bytes(plan, area) + working
