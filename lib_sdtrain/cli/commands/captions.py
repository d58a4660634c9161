"""Captions searched, replaced and counted. Without --write what would change is shown; --undo takes a change back."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lib_sdtrain.cli.run import DONE, show_document
from lib_sdtrain.cli.terminal import Terminal
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, result_of
from lib_sdtrain.places import is_dir

SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `captions`."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="pictures with .txt or .caption files beside them")
    parser.add_argument("--find", default="", metavar="TEXT", help="what to replace")
    parser.add_argument("--replace", default="", metavar="TEXT", help="by what; nothing removes it")
    parser.add_argument("--word", action="store_true", help="whole words only")
    parser.add_argument("--regex", action="store_true", help="--find is a regular expression")
    for flag, what in (("remove", "take these tags out"), ("first", "put these tags before all others"),
                       ("last", "put these tags behind all others")):
        parser.add_argument(f"--{flag}", nargs="+", default=[], metavar="TAG", help=what)
    parser.add_argument("--separator", default=",", help="what stands between tags; default: a comma")
    parser.add_argument("--write", action="store_true", help="do it")
    parser.add_argument("--undo", action="store_true", help="take back the last change that was written here")


def run(args: argparse.Namespace) -> int:
    """Count, preview, write or take back."""
    from lib_sdtrain.data.caption_edit import Edit, apply_changes, changes, statistics
    from lib_sdtrain.data.journal import undo

    if not is_dir(args.folder):
        raise UserError(f"there is no folder {args.folder}", where="FOLDER")
    if args.undo:
        show_document({"undone": undo(args.folder)}, args.json, lambda done: f"{done['undone']} files as they were")
        return DONE
    terminal, token = Terminal(), CancelToken()
    edit = Edit(args.find, args.replace, args.word, args.regex, tuple(args.remove), tuple(args.first),
                tuple(args.last), args.separator)
    if not (args.find or args.remove or args.first or args.last):
        told = result_of(statistics(args.folder, token, args.separator), terminal.show)
        show_document(told, args.json, _statistics)
        return DONE
    found = result_of(changes(args.folder, edit, token), terminal.show)
    if args.write:
        for event in apply_changes(args.folder, found, token):
            terminal.show(event)
    document = {
        "written": args.write,
        "changes": [{"file": str(c.path), "before": c.before.strip(), "after": c.after.strip()} for c in found],
    }
    show_document(document, args.json, _changes)
    return DONE


def _statistics(document: dict[str, Any]) -> str:
    lines = [f"{document['pictures']} pictures, {document['captions']} captions, {document['empty']} of them empty"]
    tags = list(document["tags"].items())
    lines += [f"  {count:>6}  {tag}" for tag, count in tags[: 2 * SHOWN]]
    return "\n".join([*lines, f"  ... and {len(tags) - 2 * SHOWN} more"] if len(tags) > 2 * SHOWN else lines)


def _changes(document: dict[str, Any]) -> str:
    found, lines = document["changes"], []
    for change in found[:SHOWN]:
        lines += [change["file"], f"  - {change['before']}", f"  + {change['after']}"]
    if len(found) > SHOWN:
        lines.append(f"... and {len(found) - SHOWN} more")
    done = "changed; --undo takes it back" if document["written"] else "would change; --write does it"
    return "\n".join([*lines, f"{len(found)} captions {done}"])
