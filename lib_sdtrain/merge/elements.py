"""Element weights: a weight for some layers of some blocks, over the block weights.

Rules are `BLOCKS:LAYERS:WEIGHT`, separated by commas or new lines, as in SuperMerger's elemental merge:

    OUT03-OUT05:cross-attention:0.5, IN07:attn1.to_q attn1.to_k:1, NOT M00:norm:0

BLOCKS are names and ranges, LAYERS names of `LAYERS` or parts of tensor names; several are separated by
spaces, none means all, and a leading NOT turns the list round. Of several rules that fit, the last counts.
"""
from __future__ import annotations

import re
from dataclasses import dataclass

from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.merge.blocks import KEEP, Layout

LAYERS: dict[str, str] = {
    "attention": r"\.attn[12]\.|self_attn\.|\.attn\.",
    "self-attention": r"\.attn1\.",
    "cross-attention": r"\.attn2\.",
    "query": r"\.to_q\.|\.q_proj\.",
    "key": r"\.to_k\.|\.k_proj\.",
    "value": r"\.to_v\.|\.v_proj\.",
    "output": r"\.to_out\.|\.out_proj\.",
    "projection": r"\.proj_(in|out)\.",
    "feed-forward": r"\.ff\.|\.mlp\.",
    "norm": r"norm|\.ln_|\.(in_layers|out_layers|out)\.0\.",
    "conv": r"\.in_layers\.2\.|\.out_layers\.3\.|\.conv\.|\.op\.|skip_connection|input_blocks\.0\.0\.|\.out\.2\.",
    "time-embedding": r"emb_layers|time_embed",
}
"""Layer kinds by name: what the tensors of each are called."""

COLUMNS = ("self-attention", "cross-attention", "feed-forward", "norm", "time-embedding", "conv", "projection")
"""Kinds that tell the tensors of a block apart, the first that fits; the rest is `other`."""

_NOT = "NOT"
_RANGE = re.compile(r"(\w+)\s*-\s*(\w+)$")


@dataclass(frozen=True)
class Rule:
    """One rule; empty `blocks` or `layers` mean all of them, `not_blocks` and `not_layers` all but them."""

    blocks: tuple[str, ...]
    layers: tuple[str, ...]
    weight: float
    not_blocks: bool = False
    not_layers: bool = False

    def fits(self, key: str, block: str) -> bool:
        """Whether the rule speaks of this tensor."""
        in_blocks = not self.blocks or block in self.blocks
        in_layers = not self.layers or any(_is_layer(word, key) for word in self.layers)
        return in_blocks != self.not_blocks and in_layers != self.not_layers


def _is_layer(word: str, key: str) -> bool:
    pattern = LAYERS.get(word)
    return re.search(pattern, key) is not None if pattern else word in key


def layer_kind(key: str) -> str:
    """The one of `COLUMNS` that a tensor belongs to, or `other`."""
    return next((name for name in COLUMNS if _is_layer(name, key)), "other")


def parse_rules(text: str | None, layout: Layout) -> tuple[Rule, ...]:
    """The rules of a text. Raises `UserError` with every rule that cannot be read."""
    problems, rules = Problems(), []
    for part in re.split(r"[,\n]", text or ""):
        if part.strip():
            try:
                rules.append(_parse_rule(part.strip(), layout))
            except UserError as error:
                problems.absorb(error)
    problems.raise_if_any()
    return tuple(rules)


def _parse_rule(text: str, layout: Layout) -> Rule:
    where = f"element weights, {text!r}"
    parts = text.split(":")
    if len(parts) != 3:
        raise UserError("not a rule", where=where, fix="write BLOCKS:LAYERS:WEIGHT, for instance OUT04:attn2:0.5")
    try:
        weight = float(parts[2])
    except ValueError as error:
        raise UserError(f"{parts[2]!r} is not a number", where=where) from error
    blocks, not_blocks = _words(re.sub(r"\s*-\s*", "-", parts[0]))
    layers, not_layers = _words(parts[1])
    names = tuple(name for word in blocks for name in _expand(word, layout, where))
    return Rule(names, layers, weight, not_blocks, not_layers)


def _words(text: str) -> tuple[tuple[str, ...], bool]:
    words = tuple(text.split())
    return (words[1:], True) if words[:1] == (_NOT,) else (words, False)


def _expand(word: str, layout: Layout, where: str) -> tuple[str, ...]:
    names = layout.names
    match = _RANGE.match(word)
    ends = (match[1].upper(), match[2].upper()) if match else (word.upper(),) * 2
    unknown = [end for end in ends if end not in names]
    if unknown:
        raise UserError(f"there is no block {unknown[0]}", where=where, fix=f"blocks are {names[0]} ... {names[-1]}")
    first, last = sorted(names.index(end) for end in ends)
    return names[first : last + 1]


def element_weight(rules: tuple[Rule, ...], key: str, block: str) -> float | None:
    """The weight of the last rule that fits, None when none does or the tensor is never merged."""
    fitting = [rule.weight for rule in rules if block != KEEP and rule.fits(key, block)]
    return fitting[-1] if fitting else None
