"""The first step before all pictures are encoded: whether it fits, and how long one takes, is known at once."""
from __future__ import annotations

from itertools import islice

from lib_sdtrain.data.draws import Draws
from lib_sdtrain.train.data_plan import bucket_table
from lib_sdtrain.train.encoding import draws_to_encode
from lib_sdtrain.train.memory.need import fits_between_steps
from lib_sdtrain.train.memory.parts import encodes_on_the_way
from lib_sdtrain.train.memory.table import is_known
from lib_sdtrain.train.plan import Plan

WORTH_IT = 16
"""Pictures left to encode, at least: the VAE is loaded a second time for them."""


def takes_first_step_first(plan: Plan, draws: Draws) -> bool:
    """Whether a run that begins encodes what its first step sees, takes that step, and encodes the rest then.

    Not where pictures are encoded during training anyway, where some are held out (they are looked at before the first
    step), and where the run would need more memory for it, or that would have to be worked out first.
    """
    held_out = any(material.pictures for material in plan.held_out)
    if held_out or encodes_on_the_way(plan) or not is_known(plan.family, plan.settings.method):
        return False
    of_first = sum(1 for _ in draws_to_encode(draws, plan, 0, 1))
    rest = islice(draws_to_encode(draws, plan, 0, plan.steps), of_first + WORTH_IT - 1, None)
    return next(rest, None) is not None and (
        fits_between_steps(plan, draws, bucket_table(plan.materials, plan.settings.data)))
