"""Optimizers by name: what a name means, which arguments it takes, and making one for the parts of a run."""
from __future__ import annotations

import importlib
import inspect
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.imports import quick_imports
from lib_sdtrain.model.keys import TEXT_ENCODERS, UNET
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.settings.run_method import EMBEDDING, FULL, TrainGroup
from lib_sdtrain.train.optimizers.adamw8bit import AdamW8bit
from lib_sdtrain.train.optimizers.lion import Lion
from lib_sdtrain.train.optimizers.prodigy import Prodigy
from lib_sdtrain.train.optimizers.schedule_free import ScheduleFreeAdamW
from lib_sdtrain.train.token_vectors import stands_alone, token_table

WHERE = "train.optimizer"
TOKENS = "token_embedding"
ADAMW, PRODIGY, SCHEDULE_FREE = "adamw", "prodigy", "schedule_free"
OURS: Mapping[str, type[torch.optim.Optimizer]] = {
    "adamw8bit": AdamW8bit, "lion": Lion, PRODIGY: Prodigy, SCHEDULE_FREE: ScheduleFreeAdamW,
}
OTHERS = {ADAMW: "torch.optim.AdamW", "adafactor": "transformers.optimization.Adafactor"}
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    # a learning rate of one's own; the rest as in Shazeer & Stern 2018
    "adafactor": {"scale_parameter": False, "relative_step": False, "warmup_init": False},
}
MOMENT_BYTES = {
    "adamw8bit": 2, "lion": 4, PRODIGY: 16, "adafactor": 0, "SGD": 4, "bitsandbytes.optim.AdamW8bit": 2,
    "bitsandbytes.optim.Adam8bit": 2, "bitsandbytes.optim.PagedAdamW8bit": 2, "bitsandbytes.optim.Lion8bit": 1,
}
MOMENT_BYTES_OF_ADAMW = 8
_KNOWN = ("torch.optim", "lib_sdtrain.train.optimizers", "transformers.optimization")
_EACH_ALONE = (*_KNOWN, "bitsandbytes.optim")
NOT_ARGUMENTS = {"self", "params", "lr", "fused", "foreach", "capturable", "differentiable", "maximize"}


def moment_bytes(name: str) -> int:
    """What an optimizer keeps of each fp32 weight; as much as AdamW where that is not known."""
    return MOMENT_BYTES.get(name, MOMENT_BYTES_OF_ADAMW)


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """The class that a name means: one of ours, a class of torch.optim, or any installed one by its dotted name.

    Raises `UserError` when there is none, or it is no optimizer that can be used here.
    """
    if name in OURS:
        return OURS[name]
    dotted = OTHERS.get(name, name if "." in name else f"torch.optim.{name}")
    module, _, last = dotted.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), last, None)
    except ImportError as error:
        raise UserError(
            f"{module} cannot be imported ({error})", where=WHERE, fix=f"install it, or choose {', '.join(names())}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise UserError(
            f"{name!r} is no optimizer", where=WHERE,
            fix=f"choose {', '.join(names())}, or name a class, as in RAdam or bitsandbytes.optim.AdamW8bit",
        )
    closure = inspect.signature(found.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise UserError(f"{name} asks for the loss many times a step", where=WHERE, fix=f"choose {', '.join(names())}")
    if all(callable(getattr(found, mode, None)) for mode in ("train", "eval")):  # weights differ in them
        raise UserError(
            f"{name} wants to be told when training pauses, which nothing here does", where=WHERE,
            fix=f"choose {SCHEDULE_FREE}, which averages by itself",
        )
    return found


def treats_each_alone(name: str) -> bool:
    """Whether it is known to treat each parameter on its own. One that cannot be found is told of elsewhere."""
    try:
        module = optimizer_class(name).__module__
    except UserError:
        return True
    return name != PRODIGY and module.startswith(_EACH_ALONE)


def names() -> list[str]:
    """The optimizers that have a name of their own."""
    return [ADAMW, *(name for name in (*OURS, *OTHERS) if name != ADAMW)]


def arguments(train: TrainGroup) -> dict[str, Any]:
    """The arguments that the optimizer is made with; lists (of YAML and JSON) become tuples."""
    given = {**DEFAULTS.get(train.optimizer, {}), **train.optimizer_args}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def memory_of(train: TrainGroup) -> set[str]:
    """What the optimizer keeps of a matrix behind its first step, by its names; nothing is known of other packages'."""
    if not optimizer_class(train.optimizer).__module__.startswith(_KNOWN):
        return set()
    matrix = nn.Parameter(torch.zeros(64, 64))
    optimizer = _trial(train, matrix)
    matrix.grad = torch.ones_like(matrix)
    optimizer.step()
    return set(optimizer.state[matrix])


def check_optimizer(train: TrainGroup, problems: Problems) -> None:
    """Add what is wrong with the optimizer and its arguments; one is made for a single weight to see."""
    try:
        made = optimizer_class(train.optimizer)
    except UserError as error:
        problems.absorb(error)
        return
    accepted = inspect.signature(made.__init__).parameters
    known = sorted(set(accepted) - NOT_ARGUMENTS)
    open_ended = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in accepted.values())
    unknown = [] if open_ended else sorted(set(train.optimizer_args) - set(known))
    for name in unknown:
        problems.add(
            f"{train.optimizer} has no such argument", where=f"train.optimizer_args.{name}",
            fix=f"it has {', '.join(known)}",
        )
    before = len(problems.found)
    _check_common(train.optimizer_args, problems)
    if unknown or len(problems.found) > before:
        return
    try:
        _trial(train, nn.Parameter(torch.zeros(1)))
    except (TypeError, ValueError, RuntimeError) as error:
        problems.add(f"{train.optimizer} does not take these: {error}", where="train.optimizer_args")


def _trial(train: TrainGroup, parameter: nn.Parameter) -> torch.optim.Optimizer:
    with quick_imports():  # with its first optimizer torch imports its compiler
        return optimizer_class(train.optimizer)([parameter], lr=train.learning_rate, **arguments(train))


def _check_common(given: Mapping[str, Any], problems: Problems) -> None:
    betas = given.get("betas", (0.9, 0.999))
    if not (isinstance(betas, (list, tuple)) and len(betas) >= 2 and all(_fraction(beta) for beta in betas)):
        problems.add(
            f"{betas!r} is not two numbers from 0 to 1", where="train.optimizer_args.betas",
            fix="for instance [0.9, 0.999]",
        )
    for name in ("eps", "weight_decay"):
        value = given.get(name, 0.0)
        if isinstance(value, (list, tuple)) and name == "eps":  # Adafactor has two
            continue
        if not isinstance(value, (int, float)) or isinstance(value, bool) or value < 0:
            problems.add(f"{value!r} is not a number of at least 0", where=f"train.optimizer_args.{name}")


def _fraction(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1


def base_rates(settings: RunSettings, pictures: int) -> dict[str, float]:
    """Learning rate of each part, scaled by the batch or the number of pictures as train.scale_lr says."""
    train = settings.train
    own = {
        UNET: None, TEXT_ENCODERS[0]: train.text_encoder_lr, TEXT_ENCODERS[1]: train.text_encoder_2_lr,
        EMBEDDING: settings.embedding.learning_rate,
    }
    if train.token_embedding_lr is not None:
        own[TOKENS] = train.token_embedding_lr
    samples = train.batch_size * train.gradient_accumulation_steps
    scale = {"linear": samples, "sqrt": samples**0.5, "pictures": pictures}.get(train.scale_lr, 1)
    return {name: (train.learning_rate if rate is None else rate) * scale for name, rate in own.items()}


def trained_rates(settings: RunSettings, pictures: int, parts: Collection[str]) -> dict[str, float]:
    """The rates, before the schedule, of what is trained in a model of these `parts`."""
    rates, method = base_rates(settings, pictures), settings.method
    found = {} if method.kind == EMBEDDING else {
        name: rates[name] for name in (UNET, *TEXT_ENCODERS) if name in parts and method.trains(name)
    }
    words = TOKENS in rates and method.kind == FULL and any(name in found for name in TEXT_ENCODERS)
    wanted = [TOKENS] * words + [EMBEDDING] * bool(settings.embedding.name)
    return found | {name: rates[name] for name in wanted}


def make_optimizer(
    settings: RunSettings, parts: Mapping[str, nn.Module], device: str, pictures: int
) -> torch.optim.Optimizer:
    """The optimizer of a run on so many pictures, a group a part and rate; AdamW (Loshchilov & Hutter 2019) in torch's
    fused form, as in diffusers with a weight decay of 0.01. A token embedding that stands alone does not decay: a row
    that gets no gradient stays as it is, bit for bit.
    """
    train, rates = settings.train, base_rates(settings, pictures)
    groups = []
    for name, part in parts.items():
        table = token_table(part) if name in TEXT_ENCODERS and stands_alone(train) else None
        if table is not None:  # first, as it is the part's first parameter: no number in a saved state changes
            groups.append({**_group(f"{name}.{TOKENS}", [table], rates.get(TOKENS, rates[name])), "weight_decay": 0.0})
        for factor, parameters in _by_rate(part).items():
            rest = [parameter for parameter in parameters if parameter is not table]
            groups.append(_group(name, rest, rates[name] * factor))
    given = arguments(train)
    if train.optimizer == ADAMW:
        given["fused"] = device in ("cpu", "cuda") and _has_fused_adamw(device)
    return optimizer_class(train.optimizer)(groups, lr=train.learning_rate, **given)


def _has_fused_adamw(device: str) -> bool:
    """Whether this torch has the fused form there: on a CPU from 2.4 on, the WebUI comes with 2.1.2."""
    try:
        torch.optim.AdamW([torch.zeros(1, device=device, requires_grad=True)], fused=True)
    except RuntimeError:
        return False
    return True


def _group(name: str, parameters: list[nn.Parameter], rate: float) -> dict[str, Any]:
    return {"params": parameters, "lr": rate, "base_lr": rate, "name": name}


def _by_rate(part: nn.Module) -> dict[float, list[nn.Parameter]]:
    """The parameters of a part by what their layers multiply the learning rate with (LoRA's block weights)."""
    found: dict[float, list[nn.Parameter]] = {}
    for layer in part.children() if isinstance(part, nn.ModuleDict) else (part,):
        found.setdefault(getattr(layer, "rate", 1.0), []).extend(layer.parameters())
    return found
