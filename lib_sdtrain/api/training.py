"""The real engine behind the tab and the API."""
from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_sdtrain.api.engine import Place
from lib_sdtrain.events import CancelToken, Event, Notice, result_of
from lib_sdtrain.presets import preset_names, preset_title, read_preset
from lib_sdtrain.settings.layers import Layer, Resolved
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_method import TrainGroup

if TYPE_CHECKING:
    from lib_sdtrain.train.plan import Plan


class TrainingEngine:
    """Training with lib_sdtrain.train, imported when it is first needed."""

    def presets(self) -> Mapping[str, str]:
        """Shipped presets by name, with their titles; one whose file is damaged is called by its name."""
        return {name: preset_title(name) for name in preset_names()}

    def preset(self, name: str) -> Mapping[str, Any]:
        """What a shipped preset sets."""
        return read_preset(name)

    def resolve(self, layers: Sequence[Layer], device: str) -> Resolved[RunSettings]:
        """The settings in force."""
        from lib_sdtrain.train.starting import resolve_run

        return resolve_run(layers, device)

    def plan(self, settings: RunSettings, place: Place) -> dict[str, Any]:
        """The dry run's document with what had to be left out."""
        from lib_sdtrain.train.forecast import forecast_stages
        from lib_sdtrain.train.stages import plan_stages

        events = plan_stages(settings, place.outputs, place.device, CancelToken(), studio=place.studio)
        told: list[Event] = []
        plans = result_of(events, told.append)
        notices = [str(event) for event in told if isinstance(event, Notice)]
        document = result_of(forecast_stages(plans), told.append)
        return {**document, "notices": notices, "workload": workload(plans[0])}

    def fit(self, settings: RunSettings, place: Place, gigabytes: float | None) -> dict[str, Any]:
        """See `Engine.fit`."""
        from lib_sdtrain.train.memory.fit import GB, fit, lines_of, set_by_stages
        from lib_sdtrain.train.spare_memory import whole_memory
        from lib_sdtrain.train.stages import plan_stages

        events = plan_stages(settings, place.outputs, place.device, CancelToken(), studio=place.studio)
        plans = result_of(events, lambda event: None)
        wanted = whole_memory(place.device) / GB if gigabytes is None else gigabytes
        found = fit(plans, wanted, set_by_stages(settings))
        return {"gigabytes": round(wanted, 1), "fits": found.fits, "changes": found.changes,
                "lines": list(lines_of(found, round(wanted, 1))), "memory_before": found.before,
                "memory_bytes": found.after}  # fmt: skip

    def survey(self, settings: RunSettings, place: Place, token: CancelToken) -> Generator[Event, None, Any]:
        """The pictures of a run, to be looked at."""
        from lib_sdtrain.train.survey import make_survey

        return make_survey(settings, place.outputs, place.device, token, place.studio)

    def train(self, settings: RunSettings, place: Place, token: CancelToken) -> Iterator[Event]:
        """A new run in its own directory below the outputs."""
        from lib_sdtrain.train.loop import train

        return train(settings, token, outputs=place.outputs, device=place.device, studio=place.studio)

    def resume(
        self, run_dir: Path, changes: Mapping[str, Any], place: Place, token: CancelToken
    ) -> Iterator[Event]:
        """A run that goes on."""
        from lib_sdtrain.train.resume import resume

        return resume(run_dir, changes, token, place.device, place.studio)


def workload(plan: Plan) -> str:
    """All that the duration of a step depends on: runs of the same workload go at the same pace."""
    settings = plan.settings
    weights = sum(plan.checkpoint.parameter_counts().values())
    with_class = any(material.concept.class_prompt for material in plan.materials)
    trained = [name for name, on in (("unet", settings.method.train_unet), ("text", settings.method.train_text_encoder))
               if on]  # fmt: skip
    return " ".join(map(str, (
        plan.device, settings.method.kind, plan.family.name, weights, "x".join(map(str, plan.target)),
        f"batch {settings.train.batch_size} x {settings.train.gradient_accumulation_steps}",
        "with class" if with_class else "alone", "+".join(trained), settings.train.mixed_precision,
        "checkpointing" if settings.train.gradient_checkpointing else "", _in_backward(settings.train),
        settings.data.cache_latents,
    )))  # fmt: skip


def _in_backward(train: TrainGroup) -> str:
    if not train.step_in_backward:
        return ""
    return "in backward, clipped" if train.max_grad_norm else "in backward"
