"""Settings that make a run fit into so many gigabytes: what costs least first, and no more than is needed."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lib_sdtrain.errors import Problems
from lib_sdtrain.settings.layers import Layer, resolve, to_plain
from lib_sdtrain.settings.parse import flatten
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_method import EMBEDDING, FULL, LORA
from lib_sdtrain.train.backward_steps import check_backward_steps
from lib_sdtrain.train.data_plan import bucket_table, draws_of
from lib_sdtrain.train.encoding import UNCACHED
from lib_sdtrain.train.memory.need import need
from lib_sdtrain.train.optimizers.registry import ADAMW, PRODIGY
from lib_sdtrain.train.plan import Plan
from lib_sdtrain.train.starting import LORA_RATE

GB = 2**30
RESERVE = 0.8 * GB
"""Of a device's memory: what its driver takes, and the screen."""

Changes = Mapping[str, Any]


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
    """A way to take less memory: what it changes (nothing where it cannot be used), and what it costs."""

    words: str
    changes: Callable[[RunSettings, str], Changes]


def fit(plans: Sequence[Plan], gigabytes: float, kept: Sequence[str] = ()) -> Fitted:
    """Make all stages of a run fit; settings that are `kept` stay as they are."""
    room = gigabytes * GB - RESERVE

    def taken(chosen: Sequence[Remedy]) -> int:
        return max(_taken(plan, _changes(plan, chosen, kept)) for plan in plans)

    before, chosen = taken(()), []
    for remedy in REMEDIES:
        if taken(chosen) <= room:
            break
        if any(_changes(plan, [*chosen, remedy], kept) != _changes(plan, chosen, kept) for plan in plans):
            chosen.append(remedy)
    if taken(chosen) <= room:
        for remedy in list(chosen):  # a stronger one may have made an earlier one needless
            fewer = [other for other in chosen if other is not remedy]
            chosen = fewer if taken(fewer) <= room else chosen
    after = taken(chosen)
    return Fitted(
        dict(_changes(plans[0], chosen, kept)), tuple(remedy.words for remedy in chosen), before, after, after <= room
    )


def set_by_stages(settings: RunSettings) -> list[str]:
    """Paths that later stages set themselves: what is changed before them would not reach them."""
    entries = (entry for entry in settings.stages if isinstance(entry, Mapping))
    return [path for entry in entries for path in flatten(RunSettings, entry, Problems())]


def _taken(plan: Plan, changes: Changes) -> int:
    changed = replace(plan, settings=_with(plan.settings, changes))
    sizes = [tuple(row["size"]) for row in bucket_table(plan.materials, plan.settings.data)]
    return need(changed, draws_of(changed), sizes)["total"]


def _with(settings: RunSettings, changes: Changes) -> RunSettings:
    return resolve(RunSettings, [Layer("run", to_plain(settings)), Layer("fit", changes)]).settings


def _changes(plan: Plan, chosen: Sequence[Remedy], kept: Sequence[str]) -> Changes:
    """What the remedies change one after the other; one that would change what is kept is left out."""
    found: dict[str, Any] = {}
    for remedy in chosen:
        more = remedy.changes(_with(plan.settings, found), plan.device)
        if not set(more) & set(kept):
            found |= more
    return found


def _cached(settings: RunSettings, device: str) -> Changes:
    data = settings.data
    wanted = {"data.cache_latents": data.cache_latents, "data.cache_text_embeddings": data.cache_text_embeddings}
    return {path: "memory" for path, now in wanted.items() if now == UNCACHED and device != "cpu"}


def _in_smaller_batches(settings: RunSettings, device: str) -> Changes:
    train = settings.train
    if train.batch_size == 1 or train.step_in_backward:
        return {}
    return {"train.batch_size": 1,
            "train.gradient_accumulation_steps": train.batch_size * train.gradient_accumulation_steps}  # fmt: skip


def _checkpointing(settings: RunSettings, device: str) -> Changes:
    return {} if settings.train.gradient_checkpointing else {"train.gradient_checkpointing": True}


def _half(settings: RunSettings, device: str) -> Changes:
    return {"train.mixed_precision": "fp16"} if device == "cuda" and settings.train.mixed_precision == "no" else {}


def _average_elsewhere(settings: RunSettings, device: str) -> Changes:
    ema = settings.ema
    return {"ema.on_cpu": True} if ema.decay is not None and not ema.on_cpu and device != "cpu" else {}


def _small_moments(settings: RunSettings, device: str) -> Changes:
    train = settings.train
    plain = train.optimizer == ADAMW and set(train.optimizer_args) <= {"betas", "eps", "weight_decay"}
    return {"train.optimizer": "adamw8bit"} if plain else {}


def _in_backward(settings: RunSettings, device: str) -> Changes:
    train = settings.train
    alone = train.gradient_accumulation_steps == 1 and settings.method.kind == FULL
    if train.step_in_backward or not alone:
        return {}
    changes = {"train.step_in_backward": True, "train.max_grad_norm": 0.0}
    changes |= {"train.mixed_precision": "bf16"} if train.mixed_precision == "fp16" else {}
    problems = Problems()
    check_backward_steps(_with(settings, changes).train, problems)
    return {} if problems.found else changes


def _without_text(settings: RunSettings, device: str) -> Changes:
    method = settings.method
    if not method.train_unet or method.kind == EMBEDDING:
        return {}
    wanted = {"method.train_text_encoder": method.train_text_encoder,
              "method.train_text_encoder_2": method.train_text_encoder_2}  # fmt: skip
    return {path: False for path, on in wanted.items() if on}


def _as_lora(settings: RunSettings, device: str) -> Changes:
    if settings.method.kind != FULL:
        return {}
    rate = {} if settings.train.optimizer == PRODIGY else {"train.learning_rate": LORA_RATE}
    return {"method.kind": LORA, **rate, "train.text_encoder_lr": None, "train.text_encoder_2_lr": None,
            "train.token_embedding_lr": None, "train.token_embedding_words": "",
            "train.token_embedding_init": "", "train.step_in_backward": False}  # fmt: skip


REMEDIES = (
    Remedy("latents and text are cached, so that what makes them can leave the device", _cached),
    Remedy("one picture at a time, gradients added up: as many pictures a step as before", _in_smaller_batches),
    Remedy("activations are computed twice (gradient checkpointing): a third slower, the same result", _checkpointing),
    Remedy("the moving average lies in main memory", _average_elsewhere),
    Remedy("products in 16 bits over 32-bit weights", _half),
    Remedy("the optimizer keeps its moments in 8 bits", _small_moments),
    Remedy("weights are updated inside the backward pass: gradients are not clipped, and not in fp16", _in_backward),
    Remedy("the text encoder is not trained", _without_text),
    Remedy("a LoRA is trained in place of the whole model, with its learning rate", _as_lora),
)


def lines_of(fitted: Fitted, gigabytes: float) -> Iterator[str]:
    """What was done, for people."""
    before, after = fitted.before / GB, fitted.after / GB
    if not fitted.fits:
        yield f"it does not fit into {gigabytes:g} GB: {after:.1f} GB at the least"
    elif not fitted.reasons:
        yield f"it fits into {gigabytes:g} GB as it is ({before:.1f} GB)"
    else:
        yield f"{after:.1f} GB instead of {before:.1f} GB:"
        yield from (f"  {reason}" for reason in fitted.reasons)
