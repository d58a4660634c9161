"""Whether a request can be met: every mistake at once, before any work."""
from __future__ import annotations

from lib_sdtrain.errors import Problems
from lib_sdtrain.model.family import Family
from lib_sdtrain.sample.hires import UPSCALERS, sizes
from lib_sdtrain.sample.samplers.registry import TIMESTEP, find_sampler
from lib_sdtrain.sample.schedule_names import find_schedule
from lib_sdtrain.settings.sample import SampleRequest


def check_request(request: SampleRequest, family: Family) -> None:
    """Raise `UserError` with everything that is wrong with the request for this family."""
    problems = Problems()
    for name in dict.fromkeys((request.sampler_name, request.hr_sampler_name or request.sampler_name)):
        problems.tried(find_sampler, name)
    for name in (request.scheduler, request.hr_scheduler):
        problems.tried(find_schedule, name)
    if family.variant == "instruct_pix2pix":
        problems.add("this model edits a picture; it cannot draw from a prompt alone", where="checkpoint")
    if request.enable_hr and request.hr_upscaler not in UPSCALERS:
        problems.add(f"no upscaler is called {request.hr_upscaler!r}", where="hr_upscaler",
                     fix="known: " + ", ".join(UPSCALERS))
    problems.raise_if_any()
    _check_sizes(request, problems)
    if find_sampler(request.sampler_name).kind == TIMESTEP and not 1 <= request.steps <= 1000:
        problems.add(f"{request.sampler_name} takes 1 to 1000 steps", where="steps")
    problems.raise_if_any()


def _check_sizes(request: SampleRequest, problems: Problems) -> None:
    to = sizes(request)
    if min(to.width, to.height) < 8:
        problems.add(f"{to.width}x{to.height} is too small", where="width, height", fix="use 8 pixels or more")
    if request.enable_hr and min(to.upscale_width, to.upscale_height) < 8:
        problems.add(f"{to.upscale_width}x{to.upscale_height} is too small", where="hr_scale")
