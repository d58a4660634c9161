"""The sliders, laid out as the U-Net is: IN down the left, M at the bottom, OUT up the right, BASE inside.

Plain HTML: the page's script keeps the sliders and the text of numbers in step, and only the text is sent.
"""
from __future__ import annotations

import html
from collections.abc import Sequence

from lib_sdtrain.merge.blocks import BASE, SD

_BLOCKS_A_LEVEL = 3
_DOWNSCALE = 8
_MEANING = ("fine detail: texture, line, colour", "parts and materials", "objects and their shape", "layout and pose")
_BASE_HELP = "Text encoder, VAE and what is in no numbered block"
_OVER = (("all", "all blocks"), ("unet", "all but BASE"), ("in", "IN"), ("mid", "M00"), ("out", "OUT"),
         ("base", "BASE"), ("range", "from ... to"))  # fmt: skip
_TOOLS = (("set", "set to"), ("add", "add"), ("multiply", "multiply by"), ("smooth", "smooth"),
          ("invert", "turn round (1 - weight)"), ("mirror_in", "mirror IN onto OUT"),
          ("mirror_out", "mirror OUT onto IN"))  # fmt: skip


def u_html(names: Sequence[str] = SD.names, resolution: int = 512) -> str:
    """The editor for these blocks (BASE first) of a model made for pictures of `resolution` pixels."""
    ins, outs = ([name for name in names if name.startswith(part)] for part in ("IN", "OUT"))
    down = [_group(ins[n : n + _BLOCKS_A_LEVEL], n // _BLOCKS_A_LEVEL, resolution)
            for n in range(0, len(ins), _BLOCKS_A_LEVEL)]  # fmt: skip
    deepest = len(down) - 1
    up = [_group(outs[n : n + _BLOCKS_A_LEVEL], deepest - n // _BLOCKS_A_LEVEL, resolution)
          for n in range(0, len(outs), _BLOCKS_A_LEVEL)]  # fmt: skip
    return (
        f"<div class='sdm' data-blocks='{','.join(names)}'>{_tools(names)}"
        f"<div class='sdm-u'><div class='sdm-side sdm-in'>{''.join(down)}</div>"
        f"<div class='sdm-mid'>{_curve()}{_row(BASE, _BASE_HELP)}</div>"
        f"<div class='sdm-bottom'>{_row('M00', 'The bottom: the coarsest layers')}</div>"
        f"<div class='sdm-side sdm-out'>{''.join(up)}</div></div></div>"
    )


def _group(names: Sequence[str], level: int, resolution: int) -> str:
    side = max(1, resolution // _DOWNSCALE >> level)
    meaning = _MEANING[min(level, len(_MEANING) - 1)]
    rows = "".join(_row(name, f"{side} x {side}, {meaning}") for name in names)
    return (
        f"<div class='sdm-group' data-level='{level}'><p class='sdm-caption'>{side} &times; {side} "
        f"<span>{meaning}</span></p>{rows}</div>"
    )


def _row(name: str, title: str) -> str:
    title = html.escape(title)
    return (
        f"<div class='sdm-row' data-block='{name}'><label for='sdm_{name}' title='{title}'>{name}</label>"
        f"<span class='sdm-track'><input type='range' id='sdm_{name}' min='0' max='1' step='0.01' value='0.5'>"
        f"<i class='sdm-far' hidden></i></span>"
        f"<input type='number' class='sdm-number' step='0.05' value='0.5' aria-label='{name}, number'></div>"
    )


def _curve() -> str:
    return (
        "<div class='sdm-curve-box'><svg class='sdm-curve' role='img' "
        "aria-label='Weights by block, BASE first; drag to draw'></svg>"
        "<div class='sdm-reading' data-part='reading'>drag on the curve to draw weights</div></div>"
    )


def _tools(names: Sequence[str]) -> str:
    blocks = "".join(f"<option>{name}</option>" for name in names)
    over = "".join(f"<option value='{value}'>{text}</option>" for value, text in _OVER)
    tools = "".join(f"<option value='{value}'>{text}</option>" for value, text in _TOOLS)
    return (
        "<div class='sdm-tools' role='group' aria-label='Change several weights'>"
        "<span class='sdm-sets' role='radiogroup' aria-label='Which weights the sliders show'>"
        "<button type='button' role='radio' aria-checked='true' data-set='alpha'>&alpha;</button>"
        "<button type='button' role='radio' aria-checked='false' data-set='beta'>&beta;</button></span>"
        f"<select data-part='tool' aria-label='What to do'>{tools}</select>"
        "<input type='number' data-part='amount' step='0.05' value='0.5' aria-label='Amount'>"
        f"<span>over</span><select data-part='over' aria-label='Over which blocks'>{over}</select>"
        f"<span data-part='range' hidden><select data-part='from' aria-label='First block'>{blocks}</select> to "
        f"<select data-part='to' aria-label='Last block'>{blocks}</select></span>"
        "<button type='button' class='sdm-button' data-part='apply'>Apply</button>"
        "<button type='button' class='sdm-button' data-part='undo' disabled>Undo</button>"
        "<span class='sdm-error' data-part='error' role='alert'></span></div>"
    )
