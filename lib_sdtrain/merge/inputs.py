"""The models of a merge, opened and checked against each other before anything is computed."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lib_sdtrain.errors import Problem, Problems, UserError
from lib_sdtrain.merge.blocks import LAYOUTS, SD, Layout
from lib_sdtrain.merge.methods import Method, all_methods
from lib_sdtrain.merge.presets import Preset
from lib_sdtrain.merge.ratios import known_presets, resolve_ratios
from lib_sdtrain.merge.weights import BlockWeights, flat, read_weights
from lib_sdtrain.model.checkpoint import Checkpoint, find_checkpoint, open_checkpoint
from lib_sdtrain.model.lora import Lora, open_lora
from lib_sdtrain.model.overwriting import check_result
from lib_sdtrain.model.vae_file import VaeFile, open_vae
from lib_sdtrain.settings.merge import MergeSettings

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class LoraInput:
    """A LoRA with its weight for every block."""

    lora: Lora
    weights: BlockWeights


@dataclass(frozen=True)
class Inputs:
    """Everything that is read. `models` by role, A first: a, b, c, then m1, m2, ..."""

    method: Method
    layout: Layout
    models: dict[str, Checkpoint]
    vae: VaeFile | None = None
    loras: tuple[LoraInput, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def a(self) -> Checkpoint:
        """Model A, whose tensors the result has."""
        return self.models["a"]

    def paths(self) -> dict[str, Path]:
        """Every file by role: the models, `vae`, `lora1`, `lora2`, ..."""
        paths = {role: model.path for role, model in self.models.items()}
        if self.vae:
            paths["vae"] = self.vae.path
        return paths | {f"lora{n}": item.lora.path for n, item in enumerate(self.loras, start=1)}


def model_names(settings: MergeSettings, method: Method) -> dict[str, str]:
    """Role -> checkpoint for the models that are given. Raises `UserError` for too many or too few."""
    problems = Problems()
    given = {"a": settings.a, "b": settings.b, "c": settings.c}
    given |= {f"m{number}": name for number, name in enumerate(settings.model, start=1)}
    names = {role: name for role, name in given.items() if name}
    needed = ("a", "b", "c")[: method.models]
    for role in needed:
        if role not in names:
            problems.add("a checkpoint is needed", where=role, fix=f"{method.name} is {method.formula}")
    if not method.many:
        unused = [role for role in names if role not in needed]
        if unused:
            what = f"{method.name} uses {method.models} model{'s' * (method.models > 1)}"
            problems.add(what, where=", ".join("model" if role[0] == "m" else role for role in unused),
                         fix=f"leave it out, or choose a method for {len(names)}")
    problems.raise_if_any()
    return names


@contextmanager
def opened(settings: MergeSettings) -> Iterator[Inputs]:
    """Open and check the inputs of a merge. Raises `UserError` with every mistake found."""
    method = all_methods()[settings.method]
    problems = Problems()
    models: dict[str, Checkpoint] = {}
    try:
        _open_models(settings, method, models, problems)
        _check_out(settings, models, problems)
        problems.tried(lambda: resolve_ratios(settings, method, SD))  # what is wrong whatever the family
        problems.raise_if_any()
        notes = _check_families(models, problems)
        problems.raise_if_any()
        family = models["a"].family
        layout = LAYOUTS[family.name]
        vae = open_vae(settings.vae, family.vae, exact=models["a"].parts["vae"]) if settings.vae else None
        presets = known_presets(settings)
        loras = tuple(_open_lora(text, presets, layout, models["a"]) for text in settings.lora)
        yield Inputs(method, layout, models, vae, loras, notes)
    finally:
        for model in models.values():
            model.tensors.close()


def _open_models(
    settings: MergeSettings, method: Method, models: dict[str, Checkpoint], problems: Problems
) -> None:
    names = problems.tried(lambda: model_names(settings, method)) or {}
    for role, name in names.items():
        try:
            models[role] = open_checkpoint(name)
        except UserError as error:
            problems.found += [Problem(p.what, p.where or role, p.fix) for p in error.problems]


def _check_out(settings: MergeSettings, models: dict[str, Checkpoint], problems: Problems) -> None:
    if not settings.out:
        problems.add("a file name is needed", where="out", fix=f"for instance merged{SUFFIX}")
        return
    out = Path(settings.out).expanduser()
    if out.suffix != SUFFIX:
        problems.add(f"{out.name}: merged checkpoints are {SUFFIX} files", where="out", fix=f"end the name in {SUFFIX}")
    check_result(out, _files_read(settings, models, problems), problems)


def _files_read(settings: MergeSettings, models: dict[str, Checkpoint], problems: Problems) -> list[Path]:
    """What a merge reads; A's description is left out, because the result has the same one."""
    names = [settings.a, settings.b, settings.c, *settings.model]
    files = [find_checkpoint(name) for name in names if name]
    files += [model.config for role, model in models.items() if role != "a" and model.config]
    files += [Path(name).expanduser() for name in (settings.vae, *settings.presets) if name]
    loras = [problems.tried(lambda text=text: split_lora(text)) for text in settings.lora]
    return files + [lora[0] for lora in loras if lora]


def _check_families(models: dict[str, Checkpoint], problems: Problems) -> tuple[str, ...]:
    first, notes = models["a"], []
    for role, model in models.items():
        if model.family.name != first.family.name:
            problems.add(
                f"{model.path.name} is {model.family.name}, {first.path.name} is {first.family.name}", where=role,
                fix="only models of one family can be merged",
            )
        elif model.family.prediction_type != first.family.prediction_type:
            notes.append(
                f"{model.path.name} predicts {model.family.prediction_type}, {first.path.name} "
                f"{first.family.prediction_type}: the result is read as {first.path.name} is"
            )
    return tuple(notes)


def _open_lora(text: str, presets: dict[str, Preset], layout: Layout, model: Checkpoint) -> LoraInput:
    path, weight, blocks = split_lora(text)
    weights = read_weights(blocks, presets, f"lora {path.name}").to(layout) if blocks else flat(1.0, layout)
    values = tuple(weight * value for value in weights.values)
    return LoraInput(open_lora(path, model.family), BlockWeights(layout, values, weights.notes))


def split_lora(text: str) -> tuple[Path, float, str]:
    """(file, weight, block weights) of `FILE:WEIGHT[:BLOCKS]`. Raises `UserError`."""
    head, _, last = text.rpartition(":")
    parts = [(head, last, "")]
    before, _, middle = head.rpartition(":")
    if before:
        parts.append((before, middle, last))
    for name, weight, blocks in parts:
        try:
            return Path(name).expanduser(), float(weight), blocks
        except ValueError:
            continue
    raise UserError(f"{text!r} has no weight", where="lora", fix="write FILE:WEIGHT or FILE:WEIGHT:BLOCKS")
