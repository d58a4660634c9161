"""`python -m lib_sdtrain COMMAND`: finds the command's module and runs it. Modules load only what --help needs."""
from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from lib_sdtrain.cli.run import WRONG_INPUT, guarded

COMMANDS = {
    "train": "train a subject, or a whole fine-tune",
    "merge": "merge checkpoints, block by block",
    "diff": "where two checkpoints differ, block by block",
    "sample": "pictures, as the WebUI draws them",
    "inspect": "what a model file is",
    "convert": "prune, cast, bake, change the container",
    "lora-extract": "a LoRA from two checkpoints",
    "lora-bake": "LoRAs into a checkpoint",
    "tokens": "how CLIP reads words",
    "buckets": "which sizes pictures are trained at",
    "captions": "search, replace and count captions",
    "prepare": "resize, crop or pad pictures, or move them by tag",
    "test-data": "write a small subject to train on",
    "demo": "the whole way on the built-in model: train, merge, sample",
    "merge-demo": "two fine-tunes merged with the presets of AnimeDiffusion's card",
    "ui": "open the tab without the WebUI",
    "bench": "measure this machine against baselines",
    "doctor": "check the environment, and say what to do",
}


class _Parser(argparse.ArgumentParser):
    """argparse with this project's one-line errors."""

    def error(self, message: str) -> None:
        self.exit(WRONG_INPUT, f"error: {self.prog}: {message}; see {self.prog} --help\n")


def overview() -> str:
    """The list of commands."""
    lines = ["usage: python -m lib_sdtrain COMMAND [--help]", ""]
    lines += [f"  {name:<12} {text}" for name, text in COMMANDS.items()]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(overview() + "\n")
        return 0 if arguments else WRONG_INPUT
    name, *rest = arguments
    if name not in COMMANDS:
        sys.stderr.write(f"error: {name}: no such command; one of {', '.join(COMMANDS)}\n")
        return WRONG_INPUT
    module = importlib.import_module(f"lib_sdtrain.cli.commands.{name.replace('-', '_')}")
    parser = _Parser(
        prog=f"python -m lib_sdtrain {name}", description=module.__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout, all else on stderr")
    module.add_arguments(parser)
    args = parser.parse_args(rest)
    return guarded(lambda: module.run(args))
