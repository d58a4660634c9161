"""The places of the Runs sub-tab. The page's own scripts fill them from what they ask the server."""
from __future__ import annotations

PANEL = "sdtrain_runs"

VIEW_HTML = """
<div id="sdtrain_runs_view" class="sdr">
  <section class="sdr-box" data-part="queue-box" aria-label="Queue">
    <div class="sdr-head"><strong>Queue</strong><span data-part="queue-words" class="sdtrain-note">looking …</span>
      <span class="sdr-space"></span><button type="button" class="sdr-button" data-do="hold" hidden
        title="What runs goes on; nothing more is started until you go on with the queue">Hold</button>
      <button type="button" class="sdr-button sdr-primary" data-do="go_on" hidden
        title="Start the next task when the machine is free">Go on with the queue</button>
      <button type="button" class="sdr-button" data-do="clear" hidden
        title="Takes ended tasks off this list; their runs and files stay">Clear what has ended</button></div>
    <p class="sdr-warning" data-part="queue-notice"></p>
    <ol class="sdr-tasks" data-part="queue"></ol>
  </section>
  <div class="sdr-head sdr-tools">
    <input type="search" data-part="search" class="sdtrain-search" placeholder="Find a run or merge"
      aria-label="Find a run or merge" title="Part of a name, a date, a state">
    <select data-part="kind" aria-label="What to list" title="What to list"><option value="">runs and merges</option>
      <option value="run">runs</option><option value="merge">merges</option></select>
    <span class="sdtrain-note" data-part="count"></span><span class="sdr-space"></span>
    <label class="sdtrain-file" data-part="origin"
      title="Drop a picture: the run or merge that made its model is shown">Where does a picture come from?
      <small>.png</small><input type="file" data-part="origin-file" accept=".png"></label>
    <button type="button" class="sdr-button" data-do="compare" disabled
      title="Tick two to six: loss, previews and settings side by side">Compare the ticked</button>
  </div>
  <div class="sdr-list" tabindex="0" aria-label="Runs and merges"><table id="sdtrain_runs_table" class="sdr-table">
    <thead><tr><th></th><th>Name</th><th>State</th><th>Steps</th><th>Loss</th><th>Begun</th><th>Took</th></tr></thead>
    <tbody data-part="rows"></tbody></table>
    <p class="sdtrain-note" data-part="empty" hidden>Nothing has been trained or merged here yet.</p></div>
  <section class="sdr-box" data-part="detail" hidden aria-live="polite"></section>
</div>
"""
