"""The Merge sub-tab's texts: what will happen, what ran, what was merged."""
from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from lib_sdtrain.api.merging import MODEL_NEEDED, MergeOutlook
from lib_sdtrain.ui.texts import problems_html, size_text, time_text

PANEL = "sdtrain_merge"

RUN_HTML = """
<div id="sdtrain_merge_run" class="sdtrain-run sdm-run" aria-live="polite">
  <div class="sdtrain-run-head">
    <strong data-part="label"></strong><span data-part="status"></span><span data-part="rate"></span>
  </div>
  <div class="sdtrain-bar" role="progressbar" aria-valuemin="0" aria-valuemax="100"><div data-part="bar"></div></div>
  <div data-part="problems"></div>
  <div data-part="result" class="sdtrain-result"></div>
  <ul class="sdtrain-notices" data-part="notices"></ul>
</div>
<p id="sdtrain_merge_busy" class="sdtrain-note" data-part="busy"></p>
"""
LIVE_HTML = """
<div id="sdtrain_merge_live_bar" class="sdm-live-bar" aria-live="polite">
  <strong data-part="what"></strong> <code data-part="hash"></code> <span data-part="working"></span>
  <ul class="sdtrain-problems" data-part="problems"></ul>
</div>
"""
_PARTS = {
    "input": "U-Net, down", "middle": "U-Net, bottom", "output": "U-Net, up", "out": "U-Net, last layers",
    "unet_other": "U-Net, other", "text": "text encoder", "text_bare": "text encoder, bare tensors", "vae": "VAE",
    "ema": "EMA", "ema_time_embed": "EMA, time_embed", "ema_counter": "EMA, counters", "position_ids": "position ids",
    "attention_mask": "attention mask", "schedule": "noise schedule", "marker": "markers",
}  # fmt: skip
PICTURES_HTML = "<div id='sdtrain_merge_rows' class='sdm-pictures' aria-live='polite'></div>"


def outlook_html(outlook: MergeOutlook) -> str:
    """The plan, or what has to be put right."""
    if outlook.problems and all(problem.what == MODEL_NEEDED for problem in outlook.problems):
        roles = " and ".join(problem.where.upper() for problem in outlook.problems)
        fix = html.escape(outlook.problems[0].fix)
        return f"<div class='sdtrain-plan' data-ready='false'><p>Choose model {roles}: {fix}.</p></div>"
    if outlook.problems:
        count = len(outlook.problems)
        head = "One thing is" if count == 1 else f"{count} things are"
        body = f"<p>{head} to be put right before this can start:</p>{problems_html(outlook.problems, PANEL)}"
        return f"<div class='sdtrain-plan' data-ready='false'>{body}</div>"
    facts = outlook.facts
    seconds = facts["seconds"]
    told = [f"<b>{html.escape(facts['name'])}</b>", f"<b>{size_text(facts['bytes'])}</b> on disk",
            f"<b>{size_text(facts['memory'])}</b> memory"]  # fmt: skip
    told.append(f"about <b>{time_text(seconds)}</b>" if seconds else "the first merge measures this machine")
    told.append(f"{facts['copied']} of {facts['tensors']} tensors copied as they are")
    notes = "".join(f"<li>{html.escape(str(note))}</li>" for note in facts["notes"])
    notes = f"<ul class='sdtrain-notices'>{notes}</ul>" if notes else ""
    headline = f"<p class='sdtrain-headline'>{' · '.join(told)}</p>"
    return f"<div class='sdtrain-plan' data-ready='true'>{headline}{notes}</div>"


def note_html(lines: Sequence[str]) -> str:
    """Plain notes under a control."""
    return "".join(f"<p class='sdtrain-note'>{html.escape(line)}</p>" for line in lines)


def report_html(entry: Mapping[str, Any] | None) -> str:
    """Which tensors took which weight, of the last merge."""
    if not entry:
        return ""
    rows = "".join(
        f"<tr><td>{html.escape(_PARTS.get(row['part'], str(row['part'])))}</td>"
        f"<td>{'kept from A' if row['block'] == 'A' else row['block']}</td>"
        f"<td>{_weight(row['alpha'])}</td><td>{row['tensors']}</td></tr>"
        for row in sorted(entry["report"], key=lambda row: (str(row["part"]), str(row["block"])))
    )
    return (
        f"<details class='sdm-report'><summary>Which tensors of {html.escape(entry['name'])} took which weight"
        "</summary><div class='sdm-scroll'><table class='sdtrain-table'><tr><th>Part</th><th>Block</th><th>Weight</th>"
        f"<th>Tensors</th></tr>{rows}</table></div></details>"
    )


def _weight(value: Any) -> str:
    return "copied" if value is None else f"{value:g}"
