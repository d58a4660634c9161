"""Settings that make a run fit into so many gigabytes: what costs least first, and no more than is needed."""
from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

import torch

from lib_sdtrain.data.draws import Draws
from lib_sdtrain.errors import Problems
from lib_sdtrain.settings.fields import get_path
from lib_sdtrain.settings.layers import Layer, resolve, to_plain
from lib_sdtrain.settings.parse import flatten
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_method import EMBEDDING, FULL, LORA
from lib_sdtrain.settings.run_outputs import KEEP, USE
from lib_sdtrain.train.backward_steps import check_backward_steps
from lib_sdtrain.train.convolutions import prepares_tiles
from lib_sdtrain.train.data_plan import bucket_table, draws_of
from lib_sdtrain.train.encoding import UNCACHED
from lib_sdtrain.train.memory.need import need
from lib_sdtrain.train.memory.parts import trained_weights
from lib_sdtrain.train.optimizers.elsewhere import can_lie_elsewhere
from lib_sdtrain.train.optimizers.registry import ADAMW, PRODIGY, moment_bytes
from lib_sdtrain.train.plan import Plan
from lib_sdtrain.train.spare_memory import spare_memory
from lib_sdtrain.train.starting import LORA_RATE

GB = 2**30
RESERVE = 0.8 * GB
"""Of a device's memory: what its driver takes, and the screen."""

AMPERE = 8
"""The first generation of cards (2020) that computes in bf16."""

Changes = Mapping[str, Any]
Table = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Fitted:
    """`changes` of settings by path, `reasons` for people; bytes `before` and `after`, and whether it `fits` now."""

    changes: dict[str, Any]
    reasons: tuple[str, ...]
    before: int
    after: int
    fits: bool


@dataclass(frozen=True)
class Remedy:
    """A way to take less memory: what settings it wants (none where it cannot be used), and what it costs."""

    words: str
    changes: Callable[[RunSettings, str], Changes]


def fit(plans: Sequence[Plan], gigabytes: float, kept: Sequence[str] = ()) -> Fitted:
    """Make all stages of a run fit; settings that are `kept` stay as they are."""
    room = gigabytes * GB - RESERVE
    *whole, as_lora = [remedy for remedy in REMEDIES if remedy.changes is not _moments_elsewhere or _lie_at_home(plans)]
    fitting = _Fitting(plans, room, frozenset(kept))
    in_one = [remedy for remedy in whole if remedy.changes is not _in_smaller_batches]
    for remedies in (whole, in_one, [*whole, as_lora, UNPREPARED]):  # steps in backward take a batch at once
        chosen = fitting.chosen(remedies)
        after = fitting.taken(chosen)
        if after <= room:
            break
    changes = dict(_changes(plans[0], chosen, fitting.kept))
    return Fitted(changes, tuple(remedy.words for remedy in chosen), fitting.taken(()), after, after <= room)


def _lie_at_home(plans: Sequence[Plan]) -> bool:
    """Whether main memory has room for all moments."""
    return all(trained_weights(plan) * moment_bytes(plan.settings.train.optimizer) < spare_memory() for plan in plans)


class _Fitting:
    """The search for what is needed."""

    def __init__(self, plans: Sequence[Plan], room: float, kept: frozenset[str]) -> None:
        self.plans, self.room, self.kept = plans, room, kept
        # no remedy changes what is drawn, nor how large it is
        self._pictures = [(draws_of(plan), bucket_table(plan.materials, plan.settings.data)) for plan in plans]
        self._taken: dict[tuple[Remedy, ...], int] = {}

    def taken(self, chosen: Sequence[Remedy]) -> int:
        """Bytes that the hungriest stage needs then."""
        known = tuple(chosen)
        if known not in self._taken:
            self._taken[known] = max(map(self._taken_by, self.plans, self._pictures, repeat(known)))
        return self._taken[known]

    def _taken_by(self, plan: Plan, pictures: tuple[Draws, Table], chosen: Sequence[Remedy]) -> int:
        changed = _with(plan.settings, _changes(plan, chosen, self.kept))
        return need(replace(plan, settings=changed), *pictures)["total"]

    def chosen(self, remedies: Sequence[Remedy]) -> list[Remedy]:
        """One after the other until it fits; then without those that a later one has made needless."""
        chosen: list[Remedy] = []
        for remedy in remedies:
            if self.taken(chosen) <= self.room:
                break
            if all(self._changes_something(plan, chosen, remedy) for plan in self.plans):
                chosen.append(remedy)
        if self.taken(chosen) <= self.room:
            for remedy in list(chosen):
                fewer = [other for other in chosen if other is not remedy]
                chosen = fewer if self.taken(fewer) <= self.room else chosen
        return chosen

    def _changes_something(self, plan: Plan, chosen: Sequence[Remedy], remedy: Remedy) -> bool:
        return _changes(plan, [*chosen, remedy], self.kept) != _changes(plan, chosen, self.kept)


def set_by_stages(settings: RunSettings) -> list[str]:
    """Paths that later stages set themselves: what is changed before them would not reach them."""
    entries = (entry for entry in settings.stages if isinstance(entry, Mapping))
    return [path for entry in entries for path in flatten(RunSettings, entry, Problems())]


def _with(settings: RunSettings, changes: Changes) -> RunSettings:
    return resolve(RunSettings, [Layer("run", to_plain(settings)), Layer("fit", changes)]).settings


def _changes(plan: Plan, chosen: Sequence[Remedy], kept: Collection[str]) -> Changes:
    """What the remedies change one after the other; one that would change what is kept is left out."""
    found: dict[str, Any] = {}
    for remedy in chosen:
        now = _with(plan.settings, found)
        wanted = remedy.changes(now, plan.device)
        more = {path: value for path, value in wanted.items() if get_path(now, path) != value}
        if not set(more) & set(kept):
            found |= more
    return found


NO_WORDS = {"train.token_embedding_lr": None, "train.token_embedding_words": "", "train.token_embedding_init": ""}
"""A word's own vector is trained with a whole text encoder only."""


def _cached(settings: RunSettings, device: str) -> Changes:
    data = settings.data
    wanted = {"data.cache_text_embeddings": data.cache_text_embeddings}
    if not data.random_crop or data.cache_crops:  # endless crops cannot be kept
        wanted["data.cache_latents"] = data.cache_latents
    return {path: "memory" for path, now in wanted.items() if now == UNCACHED and device == "cuda"}


def _in_smaller_batches(settings: RunSettings, device: str) -> Changes:
    train = settings.train
    if train.step_in_backward:
        return {}
    return {"train.batch_size": 1,
            "train.gradient_accumulation_steps": train.batch_size * train.gradient_accumulation_steps}  # fmt: skip


def _unprepared(settings: RunSettings, device: str) -> Changes:
    return {"train.prepared_convolutions": False} if prepares_tiles(device, settings) else {}


def _checkpointing(settings: RunSettings, device: str) -> Changes:
    return {"train.gradient_checkpointing": True}


def _half(settings: RunSettings, device: str) -> Changes:
    return {"train.mixed_precision": "fp16"} if device == "cuda" and settings.train.mixed_precision == "no" else {}


def _average_elsewhere(settings: RunSettings, device: str) -> Changes:
    return {"ema.on_cpu": True} if settings.ema.decay is not None and device == "cuda" else {}


def _small_moments(settings: RunSettings, device: str) -> Changes:
    train = settings.train
    plain = train.optimizer == ADAMW and set(train.optimizer_args) <= {"betas", "eps", "weight_decay"}
    return {"train.optimizer": "adamw8bit"} if plain else {}


def _moments_elsewhere(settings: RunSettings, device: str) -> Changes:
    return {"train.optimizer_on_cpu": True} if device == "cuda" and can_lie_elsewhere(settings.train.optimizer) else {}


def _in_backward(settings: RunSettings, device: str) -> Changes:
    train = settings.train
    if train.gradient_accumulation_steps > 1 or settings.method.kind != FULL:
        return {}
    changes: dict[str, Any] = {"train.step_in_backward": True}
    if train.mixed_precision == "fp16":
        changes["train.mixed_precision"] = "bf16" if _has_bf16() else "no"
    problems = Problems()
    check_backward_steps(_with(settings, changes).train, problems)
    return {} if problems.found else changes


def _has_bf16() -> bool:
    """Whether the card computes in bf16; one that is planned for elsewhere is taken for a newer one."""
    return not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] >= AMPERE


def _without_text(settings: RunSettings, device: str) -> Changes:
    method = settings.method
    if not method.train_unet or method.kind == EMBEDDING:
        return {}
    wanted = {"method.train_text_encoder": method.train_text_encoder,
              "method.train_text_encoder_2": method.train_text_encoder_2}  # fmt: skip
    found: dict[str, Any] = {path: False for path, on in wanted.items() if on}
    return {**found, **NO_WORDS} if found else {}


def _as_lora(settings: RunSettings, device: str) -> Changes:
    if settings.method.kind != FULL:
        return {}
    rate: dict[str, Any] = {} if settings.train.optimizer == PRODIGY else {"train.learning_rate": LORA_RATE}
    if rate and settings.train.scale_lr == "pictures":  # it is a whole model's that is told by their number
        rate["train.scale_lr"] = "none"
    average = {"save.ema": USE} if settings.save.ema == KEEP else {}
    forms = {"save.also": []} if settings.save.also else {}
    return {"method.kind": LORA, **rate, **average, **forms, "train.text_encoder_lr": None,
            "train.text_encoder_2_lr": None, **NO_WORDS, "train.step_in_backward": False}  # fmt: skip


UNPREPARED = Remedy("no weights are prepared for convolutions: a tenth slower", _unprepared)
REMEDIES = (
    Remedy("latents and text are cached, so that what makes them can leave the device", _cached),
    Remedy("one picture at a time, gradients added up: as many pictures a step as before", _in_smaller_batches),
    UNPREPARED,
    Remedy("activations are computed twice (gradient checkpointing): a third slower, the same result", _checkpointing),
    Remedy("the moving average lies in main memory", _average_elsewhere),
    Remedy("products in 16 bits over 32-bit weights", _half),
    Remedy("the optimizer keeps its moments in 8 bits", _small_moments),
    Remedy("weights move inside the backward pass, not in fp16; clipped up to 1.7 times as long", _in_backward),
    Remedy("the optimizer's moments lie in main memory, and visit the card for its step", _moments_elsewhere),
    Remedy("the text encoder is not trained, nor a word's own vector", _without_text),
    Remedy("a LoRA is trained in place of the whole model, with its learning rate and no word's own vector", _as_lora),
)


def lines_of(fitted: Fitted, gigabytes: float) -> Iterator[str]:
    """What was done, for people."""
    before, after = fitted.before / GB, fitted.after / GB
    if not fitted.fits:
        yield f"it does not fit into {gigabytes:g} GB: {after:.1f} GB with all that could be changed"
    elif not fitted.reasons:
        yield f"it fits into {gigabytes:g} GB as it is ({before:.1f} GB)"
    else:
        yield f"{after:.1f} GB instead of {before:.1f} GB:"
        yield from (f"  {reason}" for reason in fitted.reasons)
