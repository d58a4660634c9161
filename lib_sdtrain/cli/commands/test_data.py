"""Write a small world to train on: a subject with captions, pictures of its class, and a DreamBooth run on them."""
from __future__ import annotations

import argparse
from pathlib import Path

from lib_sdtrain.cli.run import DONE, show_document

PRESET = "toybox-dreambooth"
TITLE = "# The individual in subject/ is taught under a name of its own, its class is kept (prior preservation)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `test-data`."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="where to write subject/, class/ and config.yaml")


def run(args: argparse.Namespace) -> int:
    """Draw the pictures."""
    from lib_sdtrain import textfiles
    from lib_sdtrain.places import check_writable
    from lib_sdtrain.presets import read_preset
    from lib_sdtrain.toybox.testdata import write_test_data

    check_writable(args.folder, "DIR")
    config = args.folder / "config.yaml"
    written = [*write_test_data(args.folder), config]
    settings = read_preset(PRESET, args.folder.resolve())
    config.write_text(f"{TITLE}\n{textfiles.write_yaml(settings)}", encoding="utf-8")
    document = {"files": [str(path) for path in written]}
    show_document(document, args.json, lambda _: f"{len(written)} files in {args.folder}")
    return DONE
