"""The Sample sub-tab's texts, as HTML. The page's own script fills the result from what it polls."""
from __future__ import annotations

import html
from collections.abc import Sequence

from lib_sdtrain.api.sampling import SampleOutlook
from lib_sdtrain.api.sampling_work import COMPARE, GRID
from lib_sdtrain.ui.texts import problems_html

RESULT_HTML = """
<div id="sdtrain_sample_result" class="sds-panel" aria-live="polite">
  <div class="sdtrain-run-head">
    <strong data-part="label"></strong><span data-part="status"></span><span data-part="rate"></span>
  </div>
  <div class="sdtrain-bar" role="progressbar" aria-valuemin="0" aria-valuemax="100"><div data-part="bar"></div></div>
  <div data-part="problems"></div>
  <ul class="sdtrain-notices" data-part="notices"></ul>
  <p class="sdtrain-note" data-part="elsewhere"></p>
  <div class="sds-viewer" data-part="viewer"></div>
  <div class="sds-tools" data-part="tools" hidden>
    <span class="sds-modes" data-part="modes" hidden>
      <button type="button" data-mode="side">side by side</button>
      <button type="button" data-mode="swipe">swipe</button>
      <button type="button" data-mode="difference">difference</button>
    </span>
    <button type="button" data-do="use">Use these settings</button>
    <button type="button" data-do="copy">Copy the infotext</button>
    <button type="button" data-do="send" hidden>Send to txt2img</button>
  </div>
  <pre class="sds-words" data-part="words" hidden></pre>
  <div class="sds-strip" data-part="strip"></div>
  <div class="sds-recent" data-part="recent-box" hidden>
    <div class="sdtrain-caption">Recent pictures, newest first</div>
    <div class="sds-strip" data-part="recent"></div>
  </div>
  <p class="sds-empty" data-part="empty">Pictures appear here.</p>
</div>
"""


def plan_html(outlook: SampleOutlook) -> str:
    """What would happen when Generate is pressed, or what has to be put right first."""
    if outlook.problems:
        count = len(outlook.problems)
        head = "One thing is" if count == 1 else f"{count} things are"
        listed = problems_html(outlook.problems, "sdtrain_sample")
        body = f"<p>{head} to be put right before this can be drawn:</p>{listed}"
        return f"<div class='sdtrain-plan' data-ready='false'>{body}</div>"
    what = f"<b>{outlook.pictures}</b> picture{'s' if outlook.pictures != 1 else ''}"
    if outlook.kind == COMPARE:
        what = "a <b>comparison</b> of two pictures from the same seed"
    elif outlook.kind == GRID:
        what = f"a <b>grid</b> of {outlook.pictures} pictures"
    facts = [what, f"<b>{html.escape(outlook.sizes)}</b>", f"<b>{outlook.steps}</b> steps in all"]
    return f"<div class='sdtrain-plan' data-ready='true'><p class='sdtrain-headline'>{' · '.join(facts)}</p></div>"


def notes_html(notes: Sequence[str]) -> str:
    """What an infotext asks for that cannot be had, one line each; or that all of it was understood."""
    if not notes:
        return "<p class='sdtrain-note'>Read: everything in it is in the boxes below.</p>"
    lines = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    head = "<p class='sdtrain-note'>Read. Not all of it can be honoured:</p>"
    return f"{head}<ul class='sdtrain-notices sds-notes'>{lines}</ul>"
