"""The plan, as HTML: what happens when Start is pressed, or what has to be put right first."""
from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from lib_sdtrain.api.service import Outlook
from lib_sdtrain.ui.texts import memory_text, problems_html, size_text, time_text
from lib_sdtrain.ui.train.concepts import Concepts

FIT_SIZES = (8, 11, 12, 16, 24)
"""Gigabytes that people's cards have."""
UNKNOWN_TIME = "<span class='sdtrain-note'>time known after the first steps</span>"


def plan_html(outlook: Outlook, concepts: Concepts | None = None) -> str:
    """The plan or its mistakes; those of `concepts` stand at the control that shows them."""
    if outlook.problems:
        problems = [concepts.placed(problem) if concepts else problem for problem in outlook.problems]
        count = len(problems)
        head = "One thing is" if count == 1 else f"{count} things are"
        body = f"<p>{head} to be put right before this can start:</p>{problems_html(problems)}"
        return f"<div class='sdtrain-plan' data-ready='false'>{body}</div>"
    return (
        f"<div class='sdtrain-plan' data-ready='true'>{_headline(outlook.document)}{_details(outlook.document)}"
        f"{_origins(outlook.origins)}</div>"
    )


def _headline(document: Mapping[str, Any]) -> str:
    facts = [f"<b>{document['images']}</b> pictures"]
    to_make = sum(concept.get("class_images_to_make", 0) for concept in document.get("concepts", ()))
    if to_make:
        facts.append(f"<b>{to_make}</b> class pictures to make")
    facts.append(f"<b>{document['steps']}</b> steps")
    seconds = document.get("seconds")
    facts.append(f"about <b>{time_text(seconds)}</b>" if seconds else UNKNOWN_TIME)
    facts.append(f"<b>{memory_text(document['memory_bytes'])}</b> memory")
    facts.append(f"<b>{size_text(document['disk_bytes'])}</b> on disk")
    return f"<p class='sdtrain-headline'>{' · '.join(facts)}</p>"


def _details(document: Mapping[str, Any]) -> str:
    buckets = ", ".join(map(_bucket_text, document.get("buckets", ())))
    prompts = "".join(f"<li>{html.escape(str(prompt))}</li>" for prompt in document.get("prompts", ())[:6])
    notices = _too_much(document)
    notices += "".join(f"<li>{html.escape(str(notice))}</li>" for notice in document.get("notices", ()))
    parts = [f"<ul class='sdtrain-notices'>{notices}</ul>"] if notices else []
    rows = [("Sizes", html.escape(buckets))] if buckets else []
    groups = [group for concept in document.get("concepts", ()) for group in concept.get("groups", ())]
    if groups:
        shares = (f"{group['name']}: {group['images']} pictures, {group['share']:.1%}" for group in groups)
        rows.append(("Shares", html.escape(", ".join(shares))))
    if document.get("learning_rates"):
        rows.append(("Learning rate", html.escape(_rates_text(document["learning_rates"]))))
    if document.get("tokens"):
        rows.append(("Captions", html.escape(_tokens_text(document["tokens"]))))
    if document.get("memory"):
        rows.append(("Memory", html.escape(document["memory"]["words"]) + _fit_buttons()))
    if prompts:
        rows.append(("Prompts", f"<ul>{prompts}</ul>"))
    table = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows)
    if table:
        title = "Sizes, learning rate, memory and prompts"
        parts.append(f"<details><summary>{title}</summary><table>{table}</table></details>")
    return "".join(parts)


def _too_much(document: Mapping[str, Any]) -> str:
    """A line when the run needs more memory than there is."""
    there = document.get("memory_available", 0)
    if not 0 < there < document["memory_bytes"]:
        return ""
    words = f"{memory_text(document['memory_bytes'])} of memory are more than there is ({memory_text(there)})"
    return f"<li>{words} <button type='button' data-fit='null'>Make it fit</button></li>"


def _fit_buttons() -> str:
    """What changes the settings so that they fit into a card of that size."""
    sizes = "".join(f"<button type='button' data-fit='{size}'>{size} GB</button>" for size in FIT_SIZES)
    return f"<div class='sdtrain-fit'>Make it fit into {sizes}</div>"


def _bucket_text(row: Mapping[str, Any]) -> str:
    """`512 x 768 (12, 3 % cut away)`."""
    lost = f", {row['lost']:.0%} cut away" if row.get("lost", 0) >= 0.005 else ""
    return f"{row['size'][0]} x {row['size'][1]} ({row['images']}{lost})"


def _rates_text(rates: Mapping[str, float]) -> str:
    """Before the schedule, `scale_lr` counted in; one where all are the same."""
    if len(set(rates.values())) == 1:
        return f"{next(iter(rates.values())):g}"
    return ", ".join(f"{name.replace('_', ' ')} {rate:g}" for name, rate in rates.items())


def _tokens_text(tokens: Mapping[str, Any]) -> str:
    """How long captions are, and how many lose their end."""
    cut = f", {tokens['cut']:.0%} cut off" if tokens["cut"] else ""
    return f"up to {tokens['longest']} tokens{cut}"


def _origins(origins: Mapping[str, tuple[str, str]]) -> str:
    if not origins:
        return ""
    rows = "".join(
        f"<tr><th>{html.escape(path)}</th><td>{html.escape(value[:120])}</td><td>{html.escape(origin)}</td></tr>"
        for path, (value, origin) in origins.items()
    )
    title = f"{len(origins)} settings that are not the default, and where from"
    return f"<details><summary>{title}</summary><table>{rows}</table></details>"
