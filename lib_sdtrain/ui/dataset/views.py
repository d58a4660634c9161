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

EDIT = "sdtrain_preparing"
EDIT_HTML = """
<details id="sdtrain_preparing_view" class="sdd sdr sdr-box sde">
  <summary><strong>Change captions and pictures</strong>
    <span class="sdtrain-note">of the folder above, or of the one on Train</span></summary>
  <fieldset class="sde-fields"><legend>Captions</legend>
    <label title="What to look for in the captions">Find
      <input type="text" data-part="find"></label>
    <label title="What stands there then; empty takes it out">Replace by
      <input type="text" data-part="replace"></label>
    <span class="sde-row">
      <label class="sde-check" title="Bfan2 does not find Bfan22">
        <input type="checkbox" data-part="word"> whole words</label>
      <label class="sde-check" title="Find is a regular expression, as in Python">
        <input type="checkbox" data-part="regex"> regular expression</label></span>
    <label title="Tags to take out, between commas">Remove tags
      <input type="text" data-part="remove"></label>
    <label title="Tags to put before all others, between commas">Tags first
      <input type="text" data-part="first"></label>
    <label title="Tags to put behind all others, between commas">Tags last
      <input type="text" data-part="last"></label>
    <span class="sde-row">
      <button type="button" class="sdr-button" data-act="tags"
        title="How many pictures have each tag">Count tags</button>
      <button type="button" class="sdr-button sdr-primary" data-act="show"
        title="Nothing is written yet">Show what would change</button>
      <button type="button" class="sdr-button" data-act="write" disabled
        title="Write what is shown below">Write the changes</button></span>
  </fieldset>
  <fieldset class="sde-fields"><legend>Pictures</legend>
    <label title="A new folder outside of the pictures' own">Into the folder
      <input type="text" data-part="out"></label>
    <label title="The pictures whose caption has this tag">Tag
      <input type="text" data-part="tag"></label>
    <span class="sde-row">
      <button type="button" class="sdr-button" data-act="resize"
        title="Copies at the size that training would use, with their captions">Resize as training would</button>
      <button type="button" class="sdr-button" data-act="move"
        title="Move the pictures with this tag, and their captions">Move those with the tag</button></span>
  </fieldset>
  <div class="sdd-progress" data-part="progress" hidden>
    <span data-part="phase"></span><progress data-part="bar" max="1"></progress>
    <button type="button" class="sdr-button" data-act="stop">Stop</button></div>
  <ul class="sdtrain-problems" data-part="problems" role="alert"></ul>
  <div class="sde-row">
    <p data-part="said" role="status"></p>
    <button type="button" class="sdr-button" data-act="undo"
      title="The last change that was made in the folder">Take the last change back</button></div>
  <ul class="sdd-notices" data-part="notices"></ul>
  <div class="sdd-marks" data-part="tags" aria-label="Tags by frequency"></div>
  <div class="sde-changes" data-part="changes"></div>
</details>
"""
