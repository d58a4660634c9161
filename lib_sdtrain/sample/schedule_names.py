"""The names of the schedule types, apart from their arithmetic so that they can be listed without torch."""
from __future__ import annotations

from dataclasses import dataclass

from lib_sdtrain.errors import UserError


@dataclass(frozen=True)
class ScheduleName:
    """A schedule type as the WebUI knows it; `default_rho` is None where it has no rho."""

    name: str
    label: str
    default_rho: float | None = None
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that ends a sampler's name in old infotexts (DPM++ 2M Karras)."""
        return (self.label, self.name, *self.aliases)


AUTOMATIC = ScheduleName("automatic", "Automatic")
SCHEDULE_NAMES = (
    AUTOMATIC,
    ScheduleName("uniform", "Uniform"),
    ScheduleName("karras", "Karras", default_rho=7.0),
    ScheduleName("exponential", "Exponential"),
    ScheduleName("polyexponential", "Polyexponential", default_rho=1.0),
    ScheduleName("sgm_uniform", "SGM Uniform", aliases=("SGMUniform",)),
    ScheduleName("kl_optimal", "KL Optimal"),
    ScheduleName("align_your_steps", "Align Your Steps"),
    ScheduleName("simple", "Simple"),
    ScheduleName("normal", "Normal"),
    ScheduleName("ddim", "DDIM"),
    ScheduleName("beta", "Beta"),
)


def find_schedule(name: str | None) -> ScheduleName:
    """The schedule type called `name` (label or short name); Automatic for None.

    Raises `UserError` naming the known ones.
    """
    for schedule in SCHEDULE_NAMES:
        if not name or name in (schedule.name, schedule.label):
            return schedule
    raise UserError(f"no schedule type is called {name!r}", where="scheduler",
                    fix="known: " + ", ".join(schedule.label for schedule in SCHEDULE_NAMES))
