"""A LoRA from two checkpoints: what the second has over the first, as near as the rank allows."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lib_sdtrain.cli.flags import add_flags, given_values
from lib_sdtrain.cli.run import drive
from lib_sdtrain.cli.terminal import duration
from lib_sdtrain.errors import UserError
from lib_sdtrain.settings.parse import build
from lib_sdtrain.settings.run_method import MethodSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `lora-extract`."""
    parser.add_argument("base", metavar="BASE", help="the checkpoint that the LoRA will be used on")
    parser.add_argument("tuned", metavar="TUNED", help="the checkpoint that it shall make of it")
    parser.add_argument("--out", metavar="FILE", required=True, help="where to write the LoRA (.safetensors)")
    add_flags(parser, MethodSettings, skip=("kind", "alpha", "conv_alpha"))


def run(args: argparse.Namespace) -> int:
    """Extract."""
    out = Path(args.out).expanduser()
    if out.suffix != ".safetensors":
        raise UserError("a LoRA is a .safetensors file", where="--out", fix=f"write {out.with_suffix('.safetensors')}")
    from lib_sdtrain.train.lora_extract import extract

    method = build(MethodSettings, {"train_text_encoder_2": True, **given_values(args, MethodSettings)})
    base, tuned = (Path(path).expanduser() for path in (args.base, args.tuned))
    return drive(lambda token: extract(base, tuned, out, method, token), args.json, _summary)


def _summary(document: dict[str, Any]) -> str:
    return (
        f"{document['out']}  [{document['sha256'][:10]}]\n{document['layers']} layers, {document['kept']:.1%} of the "
        f"change, in {duration(document['seconds'])}"
    )
