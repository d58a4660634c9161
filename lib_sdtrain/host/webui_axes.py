"""Axes of ours in the WebUI's X/Y/Z plot."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from modules import errors, scripts

from lib_sdtrain.errors import UserError

_SCRIPT = "xyz_grid.py"


class PlotAxis(Protocol):
    """What is needed of an axis."""

    label: str
    kind: type
    apply: Callable[[Any, Any, Sequence[Any]], None]
    check: Callable[[Any, Sequence[Any]], None]
    cost: float
    choices: Callable[[], list[str]] | None
    prepare: Callable[[str], list[str]] | None


def register(axes: Sequence[PlotAxis], ended: Callable[[Any], None]) -> None:
    """Add the axes to the plot's list, those that are not there yet. `ended(cell)` is called when a plot is done.

    The plot's script is executed anew by `Reload UI`, and its list is then without ours again.
    """
    for data in scripts.scripts_data:
        if data.script_class.__module__ == _SCRIPT:
            plot = data.module
            known = {option.label for option in plot.axis_options}
            plot.axis_options += [_option(plot, axis, ended) for axis in axes if axis.label not in known]
            return


def _option(plot: Any, axis: PlotAxis, ended: Callable[[Any], None]) -> Any:
    def confirm(cell: Any, values: Sequence[Any]) -> None:
        axis.check(cell, values)
        _at_close(cell, ended)

    return plot.AxisOption(
        axis.label, axis.kind, axis.apply, plot.format_value_add_label, confirm, axis.cost, axis.choices, axis.prepare
    )


def _at_close(cell: Any, ended: Callable[[Any], None]) -> None:
    """The WebUI closes the request that the plot was started with, not the copies for its cells."""
    if "close" in vars(cell):
        return
    close = cell.close

    def closed() -> None:
        del cell.close
        try:
            ended(cell)
        except UserError as error:
            errors.report(f"SD Train: the live merge of before could not be shown again: {error}")
        finally:
            close()

    cell.close = closed
