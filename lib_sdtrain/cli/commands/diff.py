"""Where two checkpoints differ: the distance of every block, 0 where equal, 1.41 where nothing is in common."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lib_sdtrain.cli.run import drive
from lib_sdtrain.errors import UserError
from lib_sdtrain.places import is_dir
from lib_sdtrain.settings.merge import CONVENTIONS

_BAR = 40
_PICTURE = ".png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `diff`."""
    parser.add_argument("a", metavar="A", help="a checkpoint")
    parser.add_argument("b", metavar="B", help="another of the same family")
    parser.add_argument("--layers", action="store_true", help="tell the kinds of layer of each block apart")
    parser.add_argument("--out", metavar="FILE", help="write a heat map (.png), a row a block and a column a layer")
    parser.add_argument("--blocks", choices=CONVENTIONS, default="mbw", metavar="CONVENTION",
                        help=f"whose table counts; one of {', '.join(CONVENTIONS)}; default: mbw")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Compare, print, and draw what was asked for."""
    out = Path(args.out).expanduser() if args.out else None
    if out is not None and (out.suffix.lower() != _PICTURE or not is_dir(out.parent)):
        raise UserError("the heat map is a .png file in a folder that exists", where=args.out, fix="change --out")

    def summary(document: dict[str, Any]) -> str:
        return text(document, args.layers)

    from lib_sdtrain.merge.distance import compare
    from lib_sdtrain.merge.heatmap import draw_heatmap

    found: list[dict[str, Any]] = []
    code = drive(lambda token: _kept(compare(args.a, args.b, token, args.blocks), found), args.json, summary)
    if found and out is not None:
        draw_heatmap(found[-1], out)
    return code


def _kept(events: Any, found: list[dict[str, Any]]) -> Any:
    for event in events:
        if event.type == "finished":
            found.append(event.result)
        yield event


def text(document: dict[str, Any], layers: bool) -> str:
    """A line a block with a bar; below it, when asked, a line a kind of layer."""
    largest = max((row["distance"] for row in document["blocks"].values()), default=0.0)
    if not largest:
        return f"the models are equal in every block; compared in {document['seconds']:.1f} s"
    lines = []
    for block, row in document["blocks"].items():
        bar = "#" * round(_BAR * row["distance"] / largest)
        lines.append(f"{block:<6} {row['distance']:.4f}  {bar}".rstrip())
        if layers:
            kinds = document["layers"][block].items()
            lines += [f"       {cell['distance']:.4f}  {kind}" for kind, cell in kinds]
    return "\n".join([*lines, f"compared in {document['seconds']:.1f} s"])
