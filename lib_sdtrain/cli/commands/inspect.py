"""What a model file is: family, prediction type, parts, number formats, hashes, metadata, recipe and lineage."""
from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lib_sdtrain.cli.run import DONE, show_document


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `inspect`."""
    parser.add_argument("file", type=Path, help="a checkpoint, LoRA, embedding or VAE, or a diffusers folder")


def run(args: argparse.Namespace) -> int:
    """Print what the file is."""
    from lib_sdtrain.model.checkpoint import find_checkpoint
    from lib_sdtrain.model.inspection import inspect

    show_document(inspect(find_checkpoint(str(args.file))), args.json, _text)
    return DONE


def _text(document: dict[str, Any]) -> str:
    width = max(map(len, document))
    return "\n".join(f"{name:<{width}}  {_shown(value)}" for name, value in document.items())


def _shown(value: Any) -> str:
    if isinstance(value, dict) and value and all(isinstance(part, bool) for part in value.values()):
        return ", ".join(name for name, present in value.items() if present) or "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
