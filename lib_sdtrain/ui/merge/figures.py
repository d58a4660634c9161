"""Small pictures drawn from data, in the theme's colours: what a method does, and where two models differ."""
from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH, _HEIGHT, _LEFT = 300, 96, 6
_MARKS = ("a", "b", "c")


def method_html(method: Mapping[str, Any], example: Mapping[str, Sequence[float]]) -> str:
    """A method in one sentence, its formula, and what it makes of twelve example weights."""
    models = [mark.upper() for mark in _MARKS if mark in example]
    legend = "".join(f"<span class='sdm-key sdm-key-{name.lower()}'>{name}</span>" for name in models)
    many = " Takes any number of further models." if method["many"] else ""
    return (
        f"<div class='sdm-method'><div><code class='sdm-formula'>{html.escape(method['formula'])}</code>"
        f"<p>{html.escape(method['sentence'])}{many}</p>"
        f"<p class='sdtrain-note'>Source: {html.escape(method['source'])}</p></div><figure>{_example_svg(example)}"
        f"<figcaption>{legend}<span class='sdm-key sdm-key-result'>merged</span> "
        "twelve example weights, at the weights below</figcaption></figure></div>"
    )


def _example_svg(example: Mapping[str, Sequence[float]]) -> str:
    result = example["result"]
    largest = max(1.0, *(abs(value) for values in example.values() for value in values))
    step = (_WIDTH - 2 * _LEFT) / len(result)
    parts = [f"<line class='axis' x1='0' x2='{_WIDTH}' y1='{_HEIGHT / 2}' y2='{_HEIGHT / 2}'/>"]

    def y(value: float) -> float:
        return round(_HEIGHT / 2 - value / largest * (_HEIGHT / 2 - 4), 1)

    for index, value in enumerate(result):
        x = round(_LEFT + step * (index + 0.5), 1)
        top, bottom = sorted((y(value), y(0)))
        parts.append(
            f"<rect class='merged' x='{x - 7}' width='14' y='{top}' height='{max(1.0, round(bottom - top, 1))}'/>"
        )
        for mark in _MARKS:
            if mark in example:
                level = y(example[mark][index])
                parts.append(f"<line class='mark-{mark}' x1='{x - 9}' x2='{x + 9}' y1='{level}' y2='{level}'/>")
    return f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' class='sdm-example' aria-hidden='true'>{''.join(parts)}</svg>"


def difference_html(document: Mapping[str, Any] | None, columns: Sequence[str] = ()) -> str:
    """The heat map: a row a block, a column a kind of layer; the page's script puts the blocks' bars at the sliders.

    Empty while A and B have not been compared.
    """
    if not document:
        return ""
    blocks = {name: row["distance"] for name, row in document["blocks"].items()}
    if not any(blocks.values()):
        return "<p class='sdtrain-note'>A and B are equal in every block.</p>"
    data = html.escape(json.dumps(blocks))
    return (
        f"<div class='sdm-difference' data-blocks='{data}'><p class='sdtrain-note'>The bar under each slider is how "
        "far A and B are apart there, as the bars behind the curve: 0 where they are equal, 1.41 where nothing is "
        "in common.</p>"
        f"<details><summary>By kind of layer</summary>{_heat_table(document, columns)}</details></div>"
    )


def _heat_table(document: Mapping[str, Any], columns: Sequence[str]) -> str:
    largest = max(cell["distance"] for row in document["layers"].values() for cell in row.values()) or 1.0
    head = "".join(f"<th>{html.escape(column)}</th>" for column in ("", "block", *columns))
    rows = []
    for block, kinds in document["layers"].items():
        cells = [document["blocks"][block], *(kinds.get(column) for column in columns)]
        rows.append(f"<tr><th>{block}</th>{''.join(_heat_cell(cell, largest) for cell in cells)}</tr>")
    return f"<div class='sdm-scroll'><table class='sdm-heat'><tr>{head}</tr>{''.join(rows)}</table></div>"


def _heat_cell(cell: Mapping[str, float] | None, largest: float) -> str:
    if cell is None:
        return "<td></td>"
    share = round(100 * cell["distance"] / largest)
    title = f"{cell['weights']:,} weights, largest difference {cell['largest']:.3g}, cosine {cell['cosine']:.4f}"
    return f"<td style='--heat:{share}%' title='{title}'>{cell['distance']:.4f}</td>"
