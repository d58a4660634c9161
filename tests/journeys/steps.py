"""What a person does on the tab, in words of the journeys; the same standalone and in the WebUI."""
from __future__ import annotations

import os
from typing import Any

TRAIN = "#sdtrain_train"
LONG = int(os.environ.get("SDTRAIN_TEST_PATIENCE", "60")) * 1000  # milliseconds; a busy machine needs more


def wait_state(page: Any, state: str, timeout: float = LONG) -> None:
    """Until the page shows the run as `state`."""
    page.wait_for_selector(f'{TRAIN}[data-state="{state}"]', state="attached", timeout=timeout)


def wait_plan(page: Any, ready: bool = True) -> str:
    """Until the plan is there, ready or not; its text."""
    plan = page.locator(f'{TRAIN}_plan .sdtrain-plan[data-ready="{str(ready).lower()}"]')
    plan.wait_for(timeout=LONG)
    return plan.inner_text()


def set_text(page: Any, path: str, text: str) -> None:
    """Type into the control of a setting, as a person would who then goes on."""
    box = page.locator(f"{TRAIN}_{path.replace('.', '_')}").locator("textarea, input").first
    box.fill(text)
    box.blur()


def press(page: Any, name: str) -> None:
    """Press one of the tab's buttons."""
    page.click(f"{TRAIN}_{name}")


def start(page: Any) -> None:
    """Press Start and wait until the page shows the new job, not the end of an earlier one."""
    before = page.evaluate("() => window.sdtrain.jobId()")
    press(page, "start")
    page.wait_for_function("before => window.sdtrain.jobId() !== before", arg=before, timeout=LONG)


def status(page: Any) -> str:
    """The line above the bar."""
    return page.locator('#sdtrain_run [data-part="status"]').inner_text()


def curve_points(page: Any) -> int:
    """How many points the loss curve has."""
    return page.evaluate("() => window.sdtrain.job ? window.sdtrain.job.points.length : 0")


def wait_step(page: Any, step: int) -> None:
    """Until the page has seen this step."""
    page.wait_for_function(f"() => window.sdtrain.job && window.sdtrain.job.step >= {step}", timeout=LONG)


def open_tab(page: Any, name: str) -> None:
    """Go to a sub-tab."""
    page.locator("#sdtrain_tabs button", has_text=name).first.click()
