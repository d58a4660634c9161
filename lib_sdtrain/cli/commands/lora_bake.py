"""LoRAs put into a checkpoint for good: a merge of one model with LoRAs, in short."""
from __future__ import annotations

import argparse
from typing import Any

from lib_sdtrain.cli.flags import add_flags, given_values
from lib_sdtrain.cli.run import drive
from lib_sdtrain.cli.terminal import duration
from lib_sdtrain.settings.fields import declared
from lib_sdtrain.settings.merge import MergeSettings
from lib_sdtrain.settings.parse import build

FLAGS = ("out", "dtype", "ema")
KEEPS_A = "no_interpolation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `lora-bake`."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the checkpoint; it stays as it is")
    parser.add_argument("lora", metavar="FILE:WEIGHT[:BLOCKS]", nargs="+", help="a LoRA, its weight, its block weights")
    others = tuple(item.path for item in declared(MergeSettings) if item.path not in FLAGS)
    add_flags(parser, MergeSettings, skip=others)


def run(args: argparse.Namespace) -> int:
    """Bake."""
    from lib_sdtrain import merge

    given = {name: value for name, value in given_values(args, MergeSettings).items() if name in FLAGS}
    settings = build(MergeSettings, {"a": args.checkpoint, "method": KEEPS_A, "lora": tuple(args.lora), **given})
    return drive(lambda token: merge(settings, token), args.json, _summary)


def _summary(document: dict[str, Any]) -> str:
    return f"{document['out']}  [{document['sha256'][:10]}]\nin {duration(document['seconds'])}"
