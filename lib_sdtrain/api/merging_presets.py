"""Presets of block weights on the page: those that come along, those of files, and the user's own."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib_sdtrain.api.merging_files import MergeFiles
from lib_sdtrain.durable import write_atomically
from lib_sdtrain.errors import UserError


@dataclass(frozen=True)
class MergePresets:
    """The user's own presets stand in `file`, in the form of SuperMerger's mbwpresets.txt."""

    file: Path
    files: MergeFiles

    def known(self, extra: str = "") -> dict[str, tuple[str, ...]]:
        """Name -> fields. `extra` are paths of further preset files, one a line. Raises `UserError`."""
        from lib_sdtrain.merge.presets import bundled_presets, read_presets

        found = bundled_presets()
        for path in (self.file, *map(Path, self.files.many(extra, "presets"))):
            if path != self.file or path.is_file():
                found |= read_presets(path)
        return {preset.name: preset.fields for preset in found.values()}

    def names(self, extra: str = "") -> list[str]:
        """The published ones of AnimeDiffusion's card and the user's own first, then the mergers' common ones."""
        from lib_sdtrain.merge.presets import bundled_presets

        bundled, known = list(bundled_presets()), list(self.known(extra))
        own = [name for name in known if name not in bundled]
        return [*own, *bundled[-2:], *bundled[:-2]]

    def text(self, name: str, count: int, extra: str = "") -> tuple[str, list[str]]:
        """A preset as text of `count` fields, and notes on what was converted. Raises `UserError`."""
        fields = self.known(extra).get(name)
        if fields is None:
            raise UserError(f"there is no preset {name!r}", where="preset", fix="choose one of the list")
        if len(fields) == count:
            return ",".join(fields), []
        return converted(",".join(fields), count)

    def save(self, name: str, text: str) -> str:
        """Keep weights under a name. Raises `UserError` for a name that is taken or weights that are none."""
        from lib_sdtrain.merge.presets import bundled_presets
        from lib_sdtrain.merge.weights import parse_fields

        kept = name.strip()
        if not kept or any(sign in kept for sign in "\t:\n,#"):
            what = f"{kept!r} cannot be a name" if kept else "it needs a name"
            raise UserError(what, where="preset_name", fix="write one without comma, colon, # and tab")
        if kept in bundled_presets():
            raise UserError(f"{kept} comes along", where="preset_name", fix="choose another name")
        fields = parse_fields(text.split(","), "weights_alpha")
        own = self.file.read_text("utf-8").splitlines() if self.file.is_file() else []
        lines = [line for line in own if not line.startswith(f"{kept}\t")]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.file, "\n".join([*lines, f"{kept}\t{','.join(fields)}", ""]).encode())
        return kept


def converted(text: str, count: int) -> tuple[str, list[str]]:
    """Weights as text for a model with `count` blocks, and notes on what that did. Raises `UserError`."""
    from lib_sdtrain.merge.weights import COUNTS, read_weights

    weights = read_weights(text, {}, "weights_alpha").to(COUNTS[count])
    return ",".join(f"{value:.10g}" for value in weights.values), list(weights.notes)


def rolled(text: str, chosen: Sequence[int], seed: int, low: float, high: float, beta: bool = False) -> str:
    """Weights with dice rolled: R, U and X where the text has them, else X for the `chosen` positions.

    Raises `UserError` for weights that are none.
    """
    from lib_sdtrain.merge.dice import LETTERS, roll
    from lib_sdtrain.merge.weights import parse_fields

    fields = list(parse_fields(text.split(","), "weights_beta" if beta else "weights_alpha"))
    if not any(field in LETTERS for field in fields):
        fields = ["X" if index in chosen else field for index, field in enumerate(fields)]
    count = len(fields)
    return ",".join(roll(fields, seed, [low] * count, [high] * count, beta))
