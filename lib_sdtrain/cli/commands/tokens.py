"""How CLIP splits words into tokens, and how many chunks of 75 a prompt takes."""
from __future__ import annotations

import argparse
import math
from typing import Any

from lib_sdtrain.cli.run import DONE, show_document

CHUNK = 75


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `tokens`."""
    parser.add_argument("text", nargs="+", help="words; quote each text")


def run(args: argparse.Namespace) -> int:
    """Print the tokens of each text."""
    from lib_sdtrain.model.tokenizer import Tokenizer

    tokenizer = Tokenizer()
    document = []
    for text in args.text:
        pieces = tokenizer.split(text)
        document.append({
            "text": text, "tokens": [piece for piece, _ in pieces], "ids": [number for _, number in pieces],
            "chunks": max(1, math.ceil(len(pieces) / CHUNK)),
        })
    show_document(document, args.json, _text)
    return DONE


def _text(document: list[dict[str, Any]]) -> str:
    lines = []
    for entry in document:
        words = "".join(token.replace("</w>", "| ") for token in entry["tokens"])
        chunks = f"{entry['chunks']} chunk{'s' if entry['chunks'] > 1 else ''}"
        lines.append(f"{entry['text']}\n  {words}\n  {len(entry['ids'])} tokens, {chunks}: {entry['ids']}")
    return "\n".join(lines)
