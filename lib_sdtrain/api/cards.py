"""What stands beside a result in the WebUI's folders, so that its card shows a picture and the words that call it.

`NAME.preview.png` is the newest preview; `NAME.json` (LoRA) is what the WebUI's own card editor keeps: `activation
text` goes into the prompt with the card, `preferred weight` 0 stands for the WebUI's setting.
"""
from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lib_sdtrain import textfiles
from lib_sdtrain.durable import write_atomically
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import Event, Finished, Notice, Preview, Started, Stopped
from lib_sdtrain.host.protocol import Host

CARD_KINDS = ("lora", "embedding")


def carded(events: Iterator[Event], host: Host) -> Iterator[Event]:
    """Pass a run's events on; before its end is told, a result in the host's folders gets its card."""
    run, shown = None, ""
    for event in events:
        if isinstance(event, Started) and event.run_dir:
            run = Path(event.run_dir)
        elif isinstance(event, Preview):
            shown = event.file
        elif isinstance(event, (Finished, Stopped)) and run:
            files = [event.result.get(role) for role in ("checkpoint", "embedding")]
            files += [form["file"] for form in event.result.get("also", ())]
            for file in dict.fromkeys(files):
                yield from _carded(file, run, run / shown if shown else None, host)
        yield event


def _carded(file: str | None, run: Path, picture: Path | None, host: Host) -> Iterator[Event]:
    if not file:
        return
    try:
        write_card(Path(file), run, picture)
        host.refresh()
    except (OSError, UserError) as error:
        yield Notice(text=f"its card could not be written: {error}", where=Path(file).name)


def write_card(result: Path, run: Path, picture: Path | None) -> None:
    """Write the side files of a result that lies outside of its run's folder; a person's own are left as they are."""
    if run.resolve() in result.resolve().parents or not result.is_file():
        return
    preview, words = result.with_name(f"{result.stem}.preview.png"), result.with_suffix(".json")
    if picture and picture.is_file() and not preview.exists():
        shutil.copyfile(picture, preview)
    settings = textfiles.read_mapping(run / "config.yaml")
    kind = settings.get("method", {}).get("kind", "full")
    if kind in CARD_KINDS and not words.exists():
        write_atomically(words, json.dumps(card(settings), ensure_ascii=False, indent=4).encode())


def card(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The WebUI's user metadata of a result with these settings."""
    concepts = settings.get("data", {}).get("concepts") or []
    prompts = [str(concept["instance_prompt"]) for concept in concepts if concept.get("instance_prompt")]
    model = Path(str(settings.get("model", {}).get("checkpoint", ""))).stem
    length = settings.get("train", {}).get("length", 1000)
    steps = f"{length} steps" if isinstance(length, int) else str(length)
    return {
        "description": f"Trained with SD Train from {model}, {steps}.",
        "activation text": ", ".join(prompt for prompt in prompts if "[" not in prompt),
        "preferred weight": 0, "notes": "",
    }
