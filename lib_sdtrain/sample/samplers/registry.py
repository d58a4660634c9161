"""The samplers by the names the WebUI knows them by, with what else those names imply."""
from __future__ import annotations

from dataclasses import dataclass

from lib_sdtrain.errors import UserError
from lib_sdtrain.sample.schedule_names import SCHEDULE_NAMES, find_schedule

SIGMA, SPAN, TIMESTEP, CONSISTENCY = "sigma", "span", "timestep", "consistency"


@dataclass(frozen=True)
class Sampler:
    """A sampler of the WebUI.

    `kind`: visits sigmas; solves over a span of sigma by steps of its own; visits timesteps; or visits the levels of
    consistency models. `second_order` counts two evaluations a step for prompt editing. `extras` are the noise
    settings that it listens to.
    """

    name: str
    function: str
    kind: str = SIGMA
    aliases: tuple[str, ...] = ()
    schedule: str | None = None
    second_order: bool = False
    discard_penultimate: bool = False
    brownian: bool = False
    uses_ensd: bool = False
    takes_eta: bool = False
    extras: tuple[str, ...] = ()
    heun: bool = False

    def evaluations(self, steps: int) -> int:
        """Steps as prompt editing counts them."""
        return steps * 2 if self.second_order else steps


_CHURN = ("s_churn", "s_tmin", "s_tmax", "s_noise")
_NOISE = ("s_noise",)

SAMPLERS = (
    Sampler("DPM++ 2M", "dpmpp_2m", aliases=("k_dpmpp_2m",), schedule="karras"),
    Sampler("DPM++ SDE", "dpmpp_sde", aliases=("k_dpmpp_sde",), schedule="karras", second_order=True, brownian=True,
            takes_eta=True, extras=_NOISE),
    Sampler("DPM++ 2M SDE", "dpmpp_2m_sde", aliases=("k_dpmpp_2m_sde",), schedule="exponential", brownian=True,
            takes_eta=True, extras=_NOISE),
    Sampler("DPM++ 2M SDE Heun", "dpmpp_2m_sde", aliases=("k_dpmpp_2m_sde_heun",), schedule="exponential",
            brownian=True, takes_eta=True, extras=_NOISE, heun=True),
    Sampler("DPM++ 2S a", "dpmpp_2s_ancestral", aliases=("k_dpmpp_2s_a",), schedule="karras", second_order=True,
            uses_ensd=True, takes_eta=True, extras=_NOISE),
    Sampler("DPM++ 3M SDE", "dpmpp_3m_sde", aliases=("k_dpmpp_3m_sde",), schedule="exponential",
            discard_penultimate=True, brownian=True, takes_eta=True, extras=_NOISE),
    Sampler("Euler a", "euler_ancestral", aliases=("k_euler_a", "k_euler_ancestral"), uses_ensd=True, takes_eta=True),
    Sampler("Euler", "euler", aliases=("k_euler",), extras=_CHURN),
    Sampler("LMS", "lms", aliases=("k_lms",)),
    Sampler("Heun", "heun", aliases=("k_heun",), second_order=True, extras=_CHURN),
    Sampler("DPM2", "dpm2", aliases=("k_dpm_2",), schedule="karras", discard_penultimate=True, second_order=True,
            extras=_CHURN),
    Sampler("DPM2 a", "dpm2_ancestral", aliases=("k_dpm_2_a",), schedule="karras", discard_penultimate=True,
            second_order=True, uses_ensd=True, takes_eta=True, extras=_NOISE),
    Sampler("DPM fast", "dpm_fast", SPAN, ("k_dpm_fast",), uses_ensd=True, takes_eta=True, extras=_NOISE),
    Sampler("DPM adaptive", "dpm_adaptive", SPAN, ("k_dpm_ad",), uses_ensd=True, takes_eta=True),
    Sampler("Restart", "restart", aliases=("restart",), schedule="karras", second_order=True),
    Sampler("DDIM", "ddim", TIMESTEP, ("ddim",), takes_eta=True),
    Sampler("DDIM CFG++", "ddim_cfgpp", TIMESTEP, ("ddim_cfgpp",), takes_eta=True),
    Sampler("PLMS", "plms", TIMESTEP, ("plms",)),
    Sampler("UniPC", "unipc", TIMESTEP, ("unipc",)),
    Sampler("LCM", "lcm", CONSISTENCY, ("k_lcm",)),
)
_BY_NAME = {sampler.name: sampler for sampler in SAMPLERS}
_BY_ANY_NAME = {name.lower(): sampler for sampler in SAMPLERS for name in (sampler.name, *sampler.aliases)}


def find_sampler(name: str) -> Sampler:
    """The sampler called `name`, in any case and by any of its aliases. Raises `UserError` naming the known ones."""
    found = _BY_ANY_NAME.get(name.lower())
    if found is None:
        raise UserError(f"no sampler is called {name!r}", where="sampler_name",
                        fix="known: " + ", ".join(_BY_NAME))
    return found


def split_name(sampler: str, schedule: str | None) -> tuple[str, str]:
    """(sampler, schedule type) where the sampler's name may end in a schedule type, as it did before WebUI 1.9.

    `DPM++ 2M Karras` is the sampler DPM++ 2M with the schedule type Karras. The ending wins over `schedule`.
    """
    found = find_schedule(schedule)
    for candidate in SCHEDULE_NAMES:
        for ending in candidate.names:
            if sampler.endswith(" " + ending):
                found, sampler = candidate, sampler[: -len(ending) - 1]
                break
    return find_sampler(sampler).name, found.label
