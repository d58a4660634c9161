"""The running job's place on the page. The page's own script fills it from what it polls."""
from __future__ import annotations

RUN_HTML = """
<div id="sdtrain_run" class="sdtrain-run" aria-live="polite">
  <div class="sdtrain-run-head">
    <strong data-part="label"></strong><span data-part="status"></span><span data-part="rate"></span>
  </div>
  <div class="sdtrain-bar" role="progressbar" aria-valuemin="0" aria-valuemax="100"><div data-part="bar"></div></div>
  <div data-part="problems"></div>
  <div data-part="result"></div>
  <div class="sdtrain-run-body">
    <div class="sdtrain-plot-box">
      <div class="sdtrain-caption">Loss <span class="sdtrain-key-raw">each step</span>
        <span class="sdtrain-key-smooth">smoothed</span> <span data-part="reading"></span></div>
      <svg data-part="plot" class="sdtrain-plot" viewBox="0 0 640 200" role="img" aria-label="Loss by step"></svg>
    </div>
    <div class="sdtrain-previews" data-part="previews" hidden>
      <div class="sdtrain-caption">Previews, step <span data-part="preview-step"></span>
        <input type="range" data-part="preview-slider" min="0" max="0" value="0" aria-label="Step of the previews">
      </div>
      <div class="sdtrain-preview-row" data-part="preview-row"></div>
    </div>
  </div>
  <ul class="sdtrain-notices" data-part="notices"></ul>
</div>
"""
