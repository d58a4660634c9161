"""Pictures resized, cut or padded into a folder of their own as training would (data.* settings), or moved by tag.

The pictures themselves are not changed, except by --move-tag, which moves them. --undo takes the last change back.
"""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lib_sdtrain.cli.commands.train import resolve_layers
from lib_sdtrain.cli.run import DONE, drive, show_document
from lib_sdtrain.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `prepare`."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the pictures; with --undo, the result")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the result goes")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings as YAML or JSON")
    parser.add_argument("--preset", metavar="NAME", help="settings that come with SD Train, or a file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="assignments",
                        help="one setting: data.resolution, data.bucketing, data.resize, data.pad_color, ...")
    parser.add_argument("--move-tag", metavar="TAG", help="move the pictures whose caption has this tag, as they are")
    parser.add_argument("--undo", action="store_true", help="take back what was last done in FOLDER")


def run(args: argparse.Namespace) -> int:
    """Resize, move or take back."""
    from lib_sdtrain.data.journal import undo
    from lib_sdtrain.data.prepare import move_tagged, resize
    from lib_sdtrain.data.sizes import sizing_of

    if args.undo:
        show_document({"undone": undo(args.folder)}, args.json, lambda done: f"{done['undone']} files as they were")
        return DONE
    if args.out is None:
        raise UserError("no folder for the result is given", where="--out")
    if args.move_tag:
        return drive(lambda token: move_tagged(args.folder, args.out, args.move_tag, token), args.json, _summary)
    data = resolve_layers(args).settings.data
    sizing = sizing_of(data)
    return drive(lambda token: resize(args.folder, args.out, sizing, data.pad_color, token), args.json, _summary)


def _summary(document: dict[str, Any]) -> str:
    left = f", {document['left_out']} left out" if document.get("left_out") else ""
    return f"{document['pictures']} pictures in {document['out']}{left}; --undo {document['out']} takes it back"
