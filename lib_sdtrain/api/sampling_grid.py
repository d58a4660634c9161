"""Grids: what is put on their axes, and their pictures laid side by side with labels."""
from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.settings.fields import Declared, declared
from lib_sdtrain.settings.parse import parse_value
from lib_sdtrain.settings.sample import SampleRequest

if TYPE_CHECKING:
    from PIL import Image, ImageFont

NOTHING, CHECKPOINT = "nothing", "checkpoint"
FIELDS = ("steps", "cfg_scale", "sampler_name", "scheduler", "clip_skip", "seed", "denoising_strength", "hr_upscaler")
NUMBERS = ("steps", "cfg_scale", "clip_skip", "seed", "denoising_strength")
MOST_CELLS = 100
_RANGE = re.compile(r"(?P<start>[-\d.]+)\s*-\s*(?P<end>[\d.]+)(?:\s*\(\+?(?P<step>[\d.]+)\))?")
_FONTS = ("DejaVuSans.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "Roboto-Regular.ttf")
_PAD, _INK, _PAPER = 8, (20, 20, 20), (255, 255, 255)

Values = tuple[Any, ...]


def axis_titles() -> dict[str, str]:
    """Titles of what can be put on an axis -> the field it changes."""
    labels = {item.path: item.meta.label for item in declared(SampleRequest)}
    return {NOTHING: "", "Checkpoint": CHECKPOINT} | {labels[name]: name for name in FIELDS}


@dataclass(frozen=True)
class Axis:
    """One axis: the field that changes (empty for none), and its values as written and as typed."""

    field: str = ""
    title: str = ""
    written: tuple[str, ...] = ("",)
    values: Values = (None,)

    @property
    def labels(self) -> tuple[str, ...]:
        """What stands at the rows or columns."""
        return tuple(f"{self.title}: {text}" if self.field else "" for text in self.written)


def make_axis(title: str, text: str, where: str, find_checkpoint: Callable[[str, str], str]) -> Axis:
    """An axis from what was chosen and written: values between commas, or a range like `10-30 (+5)`.

    `find_checkpoint(text, where)` finds a checkpoint's name. Raises `UserError` with every mistake.
    """
    name = axis_titles().get(title or NOTHING)
    if name is None:
        raise UserError(f"{title!r} cannot be put on an axis", where=where, fix="choose one of the list")
    if not name:
        return Axis()
    written = _written(text, name)
    if not written:
        raise UserError(f"no value of {title} is given", where=f"{where}_values", fix="write values between commas")
    item = next((item for item in declared(SampleRequest) if item.path == name), None)
    problems, values = Problems(), []
    for entry in written:
        try:
            values.append(find_checkpoint(entry, f"{where}_values") if item is None else _named(item, entry))
        except UserError as error:
            problems.absorb(error, lambda _: f"{where}_values")
        except ValueError as error:
            problems.add(str(error), where=f"{where}_values")
    problems.raise_if_any()
    return Axis(name, title, written, tuple(values))


def _named(item: Declared, entry: str) -> Any:
    """The typed value; names of samplers, schedules and upscalers must be known."""
    from lib_sdtrain.sample.hires import check_upscaler
    from lib_sdtrain.sample.samplers.registry import find_sampler
    from lib_sdtrain.sample.schedule_names import find_schedule

    check = {"sampler_name": find_sampler, "scheduler": find_schedule, "hr_upscaler": check_upscaler}.get(item.path)
    if check:
        check(entry)
    return parse_value(item, entry)


def _written(text: str, name: str) -> tuple[str, ...]:
    separator = r"[\n]" if name == CHECKPOINT and "\n" in text else r"[,\n]"
    found: list[str] = []
    for part in filter(None, (part.strip() for part in re.split(separator, text or ""))):
        match = _RANGE.fullmatch(part) if name in NUMBERS else None
        found += _spread(match) if match else [part]
    return tuple(found)


def _spread(match: re.Match[str]) -> list[str]:
    try:
        start, end, step = (float(match[name] or 1) for name in ("start", "end", "step"))
    except ValueError:
        return [match.group()]
    if step <= 0 or end < start or (end - start) / step > MOST_CELLS:
        return [match.group()]
    return [f"{start + step * i:.12g}" for i in range(int((end - start) / step + 1e-6) + 1)]


def labelled(pictures: Sequence[Sequence[Image.Image]], columns: Sequence[str], rows: Sequence[str]) -> Image.Image:
    """One picture of rows of pictures, with labels above and at the left where there are any."""
    from PIL import Image, ImageDraw

    width = max(picture.width for row in pictures for picture in row)
    height = max(picture.height for row in pictures for picture in row)
    font = _font(max(12, min(28, width // 14)))
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    columns = [_fitted(measure, label, font, width) for label in columns]
    left = max((measure.textlength(label, font=font) for label in rows), default=0)
    left = int(left) + 2 * _PAD if left else 0
    line = sum(font.getmetrics()) if hasattr(font, "getmetrics") else 11
    top = line + 2 * _PAD if any(columns) else 0
    sheet = Image.new("RGB", (left + width * len(columns), top + height * len(rows)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for x, label in enumerate(columns):
        at = left + x * width + (width - measure.textlength(label, font=font)) / 2
        draw.text((at, _PAD), label, font=font, fill=_INK)
    for y, label in enumerate(rows):
        draw.text((_PAD, top + y * height + (height - line) / 2), label, font=font, fill=_INK)
        for x, picture in enumerate(pictures[y]):
            sheet.paste(picture, (left + x * width, top + y * height))
    return sheet


def _fitted(draw: Any, label: str, font: Any, width: int) -> str:
    """The label, cut so that it stays over its column."""
    while label and draw.textlength(label, font=font) > width - _PAD:
        label = label[:-2].rstrip("…") + "…" if len(label) > 2 else ""
    return label


def _font(size: int) -> ImageFont.ImageFont:
    from PIL import ImageFont

    for name in _FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default()
