"""The bucket table of a run, and where pictures of given sizes land: resized how, cut where (in the middle).

Buckets come from the settings' data.bucketing, data.arb and data.resolution.
"""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lib_sdtrain.cli.commands.train import resolve_layers
from lib_sdtrain.cli.run import DONE, show_document
from lib_sdtrain.errors import Problems


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `buckets`."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings as YAML or JSON")
    parser.add_argument("--preset", metavar="NAME", help="settings that come with SD Train, or a file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="assignments",
                        help="one setting; may be given many times, wins over the rest")
    parser.add_argument("--image", action="extend", nargs="+", default=[], metavar="WxH", dest="images",
                        help="sizes of pictures: 1920x1080")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from lib_sdtrain.data.sizes import sizing_of

    settings = resolve_layers(args).settings
    images = parse_images(args.images)
    document = buckets_document(sizing_of(settings.data), images)
    show_document(document, args.json, _text)
    return DONE


def parse_images(texts: list[str]) -> list[tuple[int, int]]:
    """(width, height) of each `WxH`. Raises `UserError` with every mistake."""
    problems, sizes = Problems(), []
    for text in texts:
        width, _, height = text.lower().replace("*", "x").partition("x")
        if width.isdigit() and height.isdigit() and int(width) and int(height):
            sizes.append((int(width), int(height)))
        else:
            problems.add(f"{text!r} is not a size", where="--image", fix="write WIDTHxHEIGHT, for instance 1920x1080")
    problems.raise_if_any()
    return sizes


def buckets_document(sizing: Any, images: list[tuple[int, int]]) -> dict[str, Any]:
    """The document of `buckets --json`."""
    from lib_sdtrain.data.sizes import Misfit

    rows = []
    for size in images:
        try:
            place = sizing.place(size)
        except Misfit as misfit:
            rows.append({"image": list(size), "rejected": str(misfit)})
            continue
        rows.append({
            "image": list(size), "bucket": list(place.bucket), "resize": list(place.resize),
            "crop": list(place.fit().crop),
        })
    return {"buckets": [list(size) for size in sizing.scheme.sizes], "images": rows}


def _text(document: dict[str, Any]) -> str:
    buckets = document["buckets"]
    lines = [f"{len(buckets)} buckets:" if buckets else "a bucket for every size that comes:"]
    lines += [f"  {w}x{h}  {w * h:,} pixels, {w / h:.3f}" for w, h in buckets]
    for row in document["images"]:
        shown = "x".join(map(str, row["image"]))
        if "rejected" in row:
            lines.append(f"{shown}: left out, {row['rejected']}")
            continue
        (bw, bh), (rw, rh), (x, y, *_) = row["bucket"], row["resize"], row["crop"]
        lines.append(f"{shown}: bucket {bw}x{bh}, resized to {rw}x{rh}, cut from {x}, {y}")
    return "\n".join(lines)
