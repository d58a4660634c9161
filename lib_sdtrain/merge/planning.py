"""Making the plan of a merge from its opened inputs and settings."""
from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.merge.adjust import Adjustment, parse_adjust
from lib_sdtrain.merge.blocks import KEEP, NEVER_MERGED, block_of, kind_of, without_rule
from lib_sdtrain.merge.inputs import Inputs
from lib_sdtrain.merge.plan import MergePlan, Source, Step
from lib_sdtrain.merge.ratios import Ratios, resolve_ratios
from lib_sdtrain.model.dtypes import SHORT_NAMES
from lib_sdtrain.model.keys import ema_key
from lib_sdtrain.settings.merge import MergeSettings

_PARTS = {"VAE": ("first_stage_model.",), "text encoder": ("cond_stage_model.", "conditioner.")}
_UNET, _EMA = "model.diffusion_model.", "model_ema."
_OF_METHOD = ("gamma", "density", "drop_rate", "seed")
_SHOWN = 3


@dataclass
class _Planner:
    """The lookups that every step needs."""

    inputs: Inputs
    settings: MergeSettings
    ratios: Ratios
    adjustments: dict[str, Adjustment]
    lora_keys: frozenset[str]
    params: tuple[tuple[str, float], ...]
    notes: list[str] = field(default_factory=list)
    only_a: list[str] = field(default_factory=list)
    problems: Problems = field(default_factory=Problems)

    def source(self, role: str, key: str) -> Source | None:
        """Where a model has the tensor; with `ema=use` the U-Net's moving average is taken for it."""
        model = self.inputs.models[role]
        if self.settings.ema == "use" and key.startswith(_UNET) and ema_key(key) in model.file_keys:
            key = ema_key(key)
        return Source(role, str(model.path), model.file_keys[key]) if key in model.file_keys else None

    def shape(self, source: Source) -> tuple[int, ...]:
        return self.inputs.models[source.role].tensors.shape(source.key)

    def dtype(self, source: Source) -> torch.dtype:
        return self.inputs.models[source.role].tensors.dtype(source.key)


def make_plan(inputs: Inputs, settings: MergeSettings) -> MergePlan:
    """The plan. Raises `UserError` with all mistakes: weights, shapes that do not fit, rules that fit nothing."""
    ratios = resolve_ratios(settings, inputs.method, inputs.layout)
    planner = _Planner(
        inputs, settings, ratios, parse_adjust(settings.adjust, inputs.layout),
        frozenset(key for item in inputs.loras for key in item.lora.changes), _method_params(inputs, settings),
    )
    steps = {step.key: step for step in _steps(planner)}
    planner.problems.raise_if_any()
    _check_rules(planner, steps.values())
    steps = _without_stale_average(planner, steps)
    notes = (*inputs.notes, *ratios.notes, *_notes(planner, steps))
    return MergePlan(steps, inputs.method, settings.arithmetic, notes)


def _method_params(inputs: Inputs, settings: MergeSettings) -> tuple[tuple[str, float], ...]:
    wanted = [*inputs.method.params, *(("seed",) if "generator" in inputs.method.params else ())]
    return tuple((name, getattr(settings, name)) for name in _OF_METHOD if name in wanted)


def _steps(planner: _Planner) -> Iterable[Step]:
    settings, inputs = planner.settings, planner.inputs
    discard = _pattern(settings.discard)
    vae = inputs.vae
    for key in inputs.a.file_keys:
        if (key.startswith(_EMA) and settings.ema != "keep") or (discard and discard.search(key)):
            continue
        if vae is None or key not in vae.sources:
            yield _step(planner, key)
    for key, source in _lacking_parts(planner):
        if not (discard and discard.search(key)):
            yield _copy(planner, key, source)
    if vae is not None:
        for key in vae.keys():  # noqa: SIM118 - not a dict
            own = inputs.a.file_keys.get(key)
            dtype = inputs.a.tensors.dtype(own) if own else vae.dtype(key)
            source = Source("vae", str(vae.path), key)
            yield Step(own or key, KEEP, (source,), _dtype(key, dtype, vae.shape(key), settings), vae.shape(key))


def _without_stale_average(planner: _Planner, steps: dict[str, Step]) -> dict[str, Step]:
    """The steps without the moving average where it is not that of the resulting weights: training would go on from it.

    It is where every model that goes into a weight has an average to go into the average, in the same way, and nothing
    else is added. Averages are merged with the weight of BASE, as by every merger that merges them.
    """
    inputs, why = planner.inputs, None
    for key, step in steps.items():
        average = ema_key(key) if key.startswith(_UNET) else None
        if average not in steps:
            continue
        models = [inputs.models[source.role] for source in step.sources if source.role in inputs.models]
        lacking = next((model for model in models if average not in model.file_keys), None)
        if lacking is not None:
            why = f"{lacking.path.name} has none"
        elif step.loras or step.adjustment:
            why = f"{'LoRAs change' if step.loras else 'adjusting changes'} the weights, and not their average"
        elif _way(planner, step) != _way(planner, steps[average]):
            why = f"averages are merged with the weight of BASE, and {step.block} or a layer in it has another"
        if why:
            break
    if why is None:
        return steps
    planner.notes.append(f"A's moving average (EMA) is left out, because it is not that of the result: {why}")
    planner.only_a[:] = [key for key in planner.only_a if not key.startswith(_EMA)]
    return {key: step for key, step in steps.items() if not key.startswith(_EMA)}


def _way(planner: _Planner, step: Step) -> tuple[object, ...]:
    """What is made of whose tensors: equal for a weight and its average where both are merged alike."""
    alpha = step.alpha if "alpha" in planner.inputs.method.params else None
    return step.method, *((alpha, step.beta) if step.method else ()), *(source.role for source in step.sources)


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(text) if text else None
    except re.error as error:
        raise UserError(f"{text!r} is not a regular expression: {error}", where="discard") from error


def _step(planner: _Planner, key: str) -> Step:
    inputs = planner.inputs
    own = planner.source("a", key)
    sources = [planner.source(role, key) for role in _roles(inputs)]
    block = block_of(key, inputs.layout, planner.settings.blocks)
    skipped = any(part in key for part in inputs.method.skips)
    floating = planner.dtype(own).is_floating_point
    if None in sources and block != KEEP and not skipped:
        planner.only_a.append(key)
    if block == KEEP or None in sources or skipped or not floating:
        return _copy(planner, key, own, KEEP if block == KEEP or not floating else block)
    channels = _fit(planner, key, sources)
    alpha, beta = planner.ratios.of(key, block)
    exact = inputs.method.exact(alpha, beta) if planner.settings.arithmetic == "fp32" else None
    if exact is not None and channels is None:
        chosen = next(source for source in sources if source.role == exact)
        return _copy(planner, key, chosen, block, (alpha, beta))
    return Step(
        planner.inputs.a.file_keys[key], block, tuple(sources), _out_dtype(planner, key, own), planner.shape(own),
        inputs.method.name, alpha, beta, planner.params, channels, **_extras(planner, key, block),
    )


def _roles(inputs: Inputs) -> list[str]:
    return list(inputs.models) if inputs.method.many else ["a", "b", "c"][: inputs.method.models]


def _copy(
    planner: _Planner, key: str, source: Source, block: str = KEEP, weights: tuple[float, float] = (0.0, 0.0)
) -> Step:
    name = planner.inputs.a.file_keys.get(key, key)
    return Step(
        name, block, (source,), _out_dtype(planner, key, source), planner.shape(source), None, *weights,
        **_extras(planner, key, block),
    )


def _extras(planner: _Planner, key: str, block: str) -> dict[str, object]:
    loras = ()
    if key in planner.lora_keys:
        place = block if block != KEEP else "BASE"
        loras = tuple(
            (f"lora{number}", item.weights[place])
            for number, item in enumerate(planner.inputs.loras, start=1)
            if key in item.lora.changes and item.weights[place] != 0
        )
    return {"loras": loras, "adjustment": planner.adjustments.get(key)}


def _out_dtype(planner: _Planner, key: str, source: Source) -> torch.dtype:
    own = planner.source("a", key)
    shape = planner.shape(source)
    return _dtype(key, planner.dtype(own or source), shape, planner.settings)


def _dtype(key: str, stored: torch.dtype, shape: tuple[int, ...], settings: MergeSettings) -> torch.dtype:
    """The stored format, or the wanted one for weights. fp8 holds matrices and kernels; the rest is fp16 then."""
    kind, _ = kind_of(key)
    if settings.dtype is None or not stored.is_floating_point or kind in NEVER_MERGED:
        return stored
    wanted = SHORT_NAMES[settings.dtype]
    coarse = wanted.itemsize == 1
    return torch.float16 if coarse and (len(shape) < 2 or kind == "vae") else wanted


def _fit(planner: _Planner, key: str, sources: list[Source]) -> int | None:
    """None when all shapes agree, else how many input channels all have; other differences are problems."""
    shapes = [planner.shape(source) for source in sources]
    first = shapes[0]
    if all(shape == first for shape in shapes):
        return None
    same_but_channels = all(shape[:1] + shape[2:] == first[:1] + first[2:] for shape in shapes) and len(first) == 4
    if same_but_channels and first[1] == max(shape[1] for shape in shapes):
        return min(shape[1] for shape in shapes)
    if same_but_channels:
        widest = next(source for source, shape in zip(sources, shapes, strict=True) if shape[1] > first[1])
        kind = {9: "an inpainting model", 8: "an instruct-pix2pix model"}.get(planner.shape(widest)[1], "a wider model")
        planner.problems.add(f"{kind} must be model A", where=widest.role, fix="swap the models")
    elif len(planner.problems.found) < _SHOWN:
        sizes = ", ".join(f"{s.role} {'x'.join(map(str, shape))}" for s, shape in zip(sources, shapes, strict=True))
        planner.problems.add(f"sizes differ: {sizes}", where=key, fix="only models of one architecture can be merged")
    return None


def _lacking_parts(planner: _Planner) -> Iterable[tuple[str, Source]]:
    """Tensors of whole parts that A lacks, from the first other model that has the part."""
    models = planner.inputs.models
    for part, prefixes in _PARTS.items():
        if any(key.startswith(prefixes) for key in planner.inputs.a.file_keys):
            continue
        if part == "VAE" and planner.inputs.vae is not None:
            continue
        giver = next((role for role in _roles(planner.inputs)[1:] if _has(models[role].file_keys, prefixes)), None)
        if giver is None:
            continue
        planner.notes.append(f"A has no {part}: the result takes that of {models[giver].path.name}")
        yield from ((key, planner.source(giver, key)) for key in models[giver].file_keys if key.startswith(prefixes))


def _has(keys: Iterable[str], prefixes: tuple[str, ...]) -> bool:
    return any(key.startswith(prefixes) for key in keys)


def _check_rules(planner: _Planner, steps: Iterable[Step]) -> None:
    merged = [(step.key, step.block) for step in steps if step.block != KEEP]
    for rule in planner.ratios.rules:
        if not any(rule.fits(key, block) for key, block in merged):
            planner.problems.add(
                f"no tensor is called {' '.join(rule.layers)} in {' '.join(rule.blocks) or 'any block'}",
                where="elements", fix="see the names of layers in the help",
            )
    planner.problems.raise_if_any()


def _notes(planner: _Planner, steps: dict[str, Step]) -> list[str]:
    inputs, notes = planner.inputs, list(planner.notes)
    for item in inputs.loras:
        notes += [*item.lora.notes, *item.weights.notes]
        lacking = [key for key in item.lora.changes if inputs.a.file_keys.get(key, key) not in steps]
        if lacking:
            notes.append(f"{item.lora.path.name}: {len(lacking)} tensors that it changes are not in the result "
                         f"({lacking[0]} ...)")
    if planner.only_a:
        notes.append(f"{len(planner.only_a)} tensors are only in A and stay as they are ({planner.only_a[0]} ...)")
    for role in _roles(inputs)[1:]:
        left = [key for key in inputs.models[role].file_keys if key not in inputs.a.file_keys and key not in steps]
        left = [key for key in left if not key.startswith(_EMA)]
        if left:
            name = inputs.models[role].path.name
            notes.append(f"{len(left)} tensors of {name} are not in A: left out ({left[0]} ...)")
    lost = without_rule(inputs.a.file_keys, inputs.layout)
    if lost:
        notes.append(f"no block rule covers {len(lost)} tensors ({', '.join(lost[:_SHOWN])})")
    return notes
