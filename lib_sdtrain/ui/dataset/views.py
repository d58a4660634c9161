"""The places of the Dataset sub-tab. The page's own scripts fill them from what they ask the server."""
from __future__ import annotations

PANEL = "sdtrain_dataset"

VIEW_HTML = """
<div id="sdtrain_dataset_view" class="sdd sdr">
  <div class="sdr-head">
    <input type="text" data-part="folder" class="sdtrain-search sdd-folder" aria-label="Folder"
      placeholder="The pictures of the Train form; or type another folder"
      title="Empty: the pictures that Train would use. A folder: its pictures, as the settings on Train would use them">
    <button type="button" class="sdr-button sdr-primary" data-do="look"
      title="Files that have not changed are not read again">Read again</button>
  </div>
  <div class="sdd-progress" data-part="progress" hidden>
    <span data-part="phase"></span>
    <progress data-part="bar" max="1"></progress>
    <button type="button" class="sdr-button" data-do="stop">Stop</button></div>
  <p class="sdtrain-note" data-part="state" role="status"></p>
  <ul class="sdtrain-problems" data-part="problems" role="alert"></ul>
  <div data-part="report" class="sdd-report" hidden>
    <p class="sdtrain-headline" data-part="headline"></p>
    <p class="sdtrain-note" data-part="source"></p>
    <div class="sdd-marks" data-part="marks" aria-label="What to look at"></div>
    <div class="sdr-columns">
      <section class="sdr-box"><strong>Sizes</strong>
        <div class="sdd-scroll"><table class="sdr-table sdd-table" data-part="buckets"></table></div></section>
      <section class="sdr-box"><strong>Shares of the samples</strong>
        <div class="sdd-scroll"><table class="sdr-table sdd-table" data-part="shares"></table></div></section>
    </div>
    <section class="sdr-box" id="sdtrain_dataset_pictures">
      <div class="sdr-head"><strong>Pictures</strong>
        <select data-part="which" aria-label="Which pictures" title="Which pictures to show"></select>
        <input type="search" class="sdtrain-search" data-part="search" placeholder="Find by name or caption"
          aria-label="Find by name or caption"><span class="sdr-space"></span>
        <button type="button" class="sdr-button" data-do="back" title="Earlier pictures">‹</button>
        <span class="sdtrain-note" data-part="place"></span>
        <button type="button" class="sdr-button" data-do="on" title="Further pictures">›</button></div>
      <p class="sdtrain-note" data-part="frame"></p>
      <div class="sdd-grid" data-part="grid"></div>
    </section>
    <section class="sdr-box"><strong>Prompts as training will see them</strong>
      <p class="sdtrain-note" data-part="tokens"></p>
      <ol class="sdd-prompts" data-part="prompts"></ol></section>
    <section class="sdr-box" data-part="notices-box"><strong>Notices</strong>
      <ul class="sdd-notices" data-part="notices"></ul></section>
  </div>
</div>
"""
