"""Train a subject, or a whole fine-tune, from pictures and a checkpoint.

Settings come in layers: the defaults, those of the model's family, a preset, a file, and --set; the dry run
shows where each value came from. The first Ctrl-C saves and stops, the second stops at once.
"""
from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from lib_sdtrain.cli.flags import parse_assignments, settings_text
from lib_sdtrain.cli.run import DONE, drive, show_document
from lib_sdtrain.cli.terminal import Terminal, duration
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, result_of
from lib_sdtrain.imports import quick_imports
from lib_sdtrain.settings.layers import Layer, Resolved
from lib_sdtrain.settings.run import RunSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `train`."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings as YAML or JSON")
    parser.add_argument("--preset", metavar="NAME", help="settings that come with SD Train, or a file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="assignments",
                        help="one setting; may be given many times, wins over the rest")
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="its directory (default: outputs/runs/DATE-NAME)")
    parser.add_argument("--resume", type=Path, metavar="RUN_DIR", help="go on where the last state was saved")
    parser.add_argument("--fit", type=_gigabytes, metavar="GB",
                        help="change what must be changed to need no more memory than this; --set stays as it is")
    parser.add_argument("--dry-run", action="store_true", help="show the plan and touch no weights")
    parser.epilog = "Settings (for --set and --config):\n" + settings_text(RunSettings)


def _gigabytes(text: str) -> float:
    try:
        value = float(text.lower().removesuffix("gb"))
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        message = f"{text!r} is no number of gigabytes, as in 8"
        raise argparse.ArgumentTypeError(message)
    return value


def run(args: argparse.Namespace) -> int:
    """Train, resume or show the plan."""
    check_flags(args)
    if args.resume:
        return _resume(args)
    resolved = resolve_layers(args, args.fit)
    sys.stderr.writelines(f"{line}\n" for line in resolved.notices())
    if args.dry_run:
        return _dry_run(resolved, args.json)
    with quick_imports():
        from lib_sdtrain.train.allocator import keep_freed_memory
        from lib_sdtrain.train.loop import train

    keep_freed_memory()
    return drive(lambda token: train(resolved.settings, token, run_dir=args.run_dir), args.json, _summary)


def check_flags(args: argparse.Namespace) -> None:
    """Flags that exclude each other."""
    if args.resume and (args.config or args.preset or args.run_dir or args.fit):
        raise UserError(
            "a resumed run keeps its own settings and directory", where="--resume",
            fix="change single settings with --set",
        )
    if not (args.resume or args.config or args.preset or args.assignments):
        raise UserError("nothing to train is given", where="train", fix="give --config FILE, or --preset NAME")


def resolve_layers(args: argparse.Namespace, gigabytes: float | None = None) -> Resolved[RunSettings]:
    """The settings in force, from all layers that the flags name; `gigabytes`: made to fit into so many."""
    with quick_imports():
        from lib_sdtrain import textfiles
        from lib_sdtrain.presets import read_preset
        from lib_sdtrain.train.starting import pick_device, resolve_run

    layers = []
    if args.preset:
        layers.append(Layer(f"preset {args.preset}", read_preset(args.preset), gives_way=True))
    if args.config:
        layers.append(Layer(str(args.config), textfiles.read_mapping(args.config)))
    own = Layer("--set", parse_assignments(args.assignments))
    if gigabytes:
        layers.append(_fitting_layer([*layers, own], own, gigabytes))
    return resolve_run([*layers, own], pick_device())


def _fitting_layer(layers: list[Layer], own: Layer, gigabytes: float) -> Layer:
    """What makes the run fit, told as it is found. Raises `UserError` when nothing does."""
    from lib_sdtrain.train.loop import OUTPUTS
    from lib_sdtrain.train.memory.fit import fit, lines_of, set_by_stages
    from lib_sdtrain.train.stages import plan_stages
    from lib_sdtrain.train.starting import pick_device, resolve_run

    resolved = resolve_run(layers, pick_device())
    plans = result_of(plan_stages(resolved.settings, OUTPUTS, pick_device(), CancelToken()), Terminal().show)
    kept = [path for path, origin in resolved.origins.items() if origin == own.name]
    fitted = fit(plans, gigabytes, [*kept, *set_by_stages(resolved.settings)])
    if not fitted.fits:
        raise UserError(next(lines_of(fitted, gigabytes)), where="--fit", fix="choose a lower data.resolution")
    sys.stderr.writelines(f"{line}\n" for line in lines_of(fitted, gigabytes))
    return Layer(f"--fit {gigabytes:g}", fitted.changes)


def _resume(args: argparse.Namespace) -> int:
    with quick_imports():
        from lib_sdtrain.train.allocator import keep_freed_memory
        from lib_sdtrain.train.resume import resume

    keep_freed_memory()
    changes = parse_assignments(args.assignments)
    return drive(lambda token: resume(args.resume, changes, token), args.json, _summary)


def _dry_run(resolved: Resolved[RunSettings], as_json: bool) -> int:
    from lib_sdtrain.train.forecast import forecast_stages, forecast_text
    from lib_sdtrain.train.loop import OUTPUTS
    from lib_sdtrain.train.stages import plan_stages
    from lib_sdtrain.train.starting import pick_device

    terminal = Terminal()
    plans = result_of(plan_stages(resolved.settings, OUTPUTS, pick_device(), CancelToken()), terminal.show)
    document = result_of(forecast_stages(plans), terminal.show)
    show_document(document, as_json, lambda document: forecast_text(document, resolved))
    return DONE


def _summary(document: dict[str, Any]) -> str:
    return (
        f"{document['checkpoint']}\n{document['steps']} steps in {duration(document['seconds'])}, "
        f"{document['steps_per_second']:.2f} steps/s, peak memory {document['peak_memory_bytes'] / 2**30:.1f} GB"
    )
