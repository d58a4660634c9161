"""From the settings to the weights of every tensor: block weights, dice, elements."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.merge.blocks import Layout
from lib_sdtrain.merge.dice import LETTERS, bounds, roll
from lib_sdtrain.merge.elements import Rule, element_weight, parse_rules
from lib_sdtrain.merge.methods import Method
from lib_sdtrain.merge.presets import Preset, bundled_presets, read_presets
from lib_sdtrain.merge.weights import COUNTS, BlockWeights, flat, read_fields
from lib_sdtrain.settings.merge import MergeSettings

DEFAULT_ALPHA = 0.5


@dataclass(frozen=True)
class Ratios:
    """The weights in force: a number for every block, and rules for single layers."""

    alpha: BlockWeights
    beta: BlockWeights
    rules: tuple[Rule, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was converted between 26 and 20 weights."""
        return tuple(dict.fromkeys((*self.alpha.notes, *self.beta.notes)))

    def of(self, key: str, block: str) -> tuple[float, float]:
        """(alpha, beta) of a tensor; element rules replace alpha."""
        element = element_weight(self.rules, key, block)
        return (self.alpha[block] if element is None else element), self.beta[block]


def known_presets(settings: MergeSettings) -> dict[str, Preset]:
    """Bundled presets and those of the settings' preset files, which win."""
    presets = bundled_presets()
    for path in settings.presets:
        presets.update(read_presets(Path(path)))
    return presets


def resolve_ratios(settings: MergeSettings, method: Method, layout: Layout) -> Ratios:
    """The weights that the settings ask for. Raises `UserError` with all mistakes."""
    problems = Problems()
    if settings.alpha is not None and settings.weights_alpha is not None:
        problems.add("both alpha and block weights are given", where="alpha, weights_alpha", fix="give one of them")
    if settings.beta is not None and settings.weights_beta is not None:
        problems.add("both beta and block weights are given", where="beta, weights_beta", fix="give one of them")
    beta_given = settings.beta is not None or settings.weights_beta is not None
    if beta_given and not method.uses_beta:
        problems.add(f"{method.name} has no beta", where="beta", fix="leave it out")
    presets = known_presets(settings)
    alpha = problems.tried(lambda: _weights(settings, presets, layout, beta=False))
    beta = problems.tried(lambda: _weights(settings, presets, layout, beta=True))
    rules = problems.tried(lambda: parse_rules(settings.elements, layout))
    problems.raise_if_any()
    if beta is None:
        beta = flat(method.beta or 0.0, layout)
    return Ratios(alpha or flat(DEFAULT_ALPHA, layout), beta, rules or ())


def _weights(
    settings: MergeSettings, presets: dict[str, Preset], layout: Layout, beta: bool
) -> BlockWeights | None:
    number = settings.beta if beta else settings.alpha
    text = settings.weights_beta if beta else settings.weights_alpha
    if text is None:
        return None if number is None else flat(number, layout)
    where = "weights_beta" if beta else "weights_alpha"
    fields = read_fields(text, presets, where)
    return _rolled(settings, fields, where, beta).to(layout)


def _rolled(settings: MergeSettings, fields: tuple[str, ...], where: str, beta: bool) -> BlockWeights:
    letters = [field for field in fields if field in LETTERS]
    if letters:
        if settings.dice_seed is None:
            raise UserError(f"{letters[0]} asks for a random number", where=where, fix="give a dice seed")
        low = bounds(settings.dice_low, len(fields), "dice_low")
        high = bounds(settings.dice_high, len(fields), "dice_high")
        fields = tuple(roll(fields, settings.dice_seed, low, high, beta))
    return BlockWeights(COUNTS[len(fields)], tuple(float(field) for field in fields))

