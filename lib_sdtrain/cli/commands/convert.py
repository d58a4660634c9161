"""Prune, cast, bake a VAE in, or change the container of a checkpoint."""
from __future__ import annotations

import argparse
from typing import Any

from lib_sdtrain.cli.flags import add_flags, given_values
from lib_sdtrain.cli.run import drive
from lib_sdtrain.cli.terminal import duration
from lib_sdtrain.settings.convert import ConvertSettings
from lib_sdtrain.settings.parse import build


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `convert`."""
    parser.add_argument("file", metavar="FILE", help="a checkpoint (.safetensors or .ckpt), or a diffusers folder")
    add_flags(parser, ConvertSettings, skip=("file", "no_vae", "no_text_encoder"))
    for name in ("vae", "text-encoder"):
        parser.add_argument(
            f"--no-{name}", dest=f"no_{name.replace('-', '_')}", action="store_true", default=argparse.SUPPRESS,
            help=f"leave the {name.replace('-', ' ')} out",
        )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Convert."""
    from lib_sdtrain.model.convert import convert

    settings = build(ConvertSettings, given_values(args, ConvertSettings))
    return drive(lambda token: convert(settings, token), args.json, _summary)


def _summary(document: dict[str, Any]) -> str:
    size = f"{document['bytes'] / 2**20:,.0f} MB"
    return f"{document['out']}  [{document['sha256'][:10]}]\n{size} in {duration(document['seconds'])}"
