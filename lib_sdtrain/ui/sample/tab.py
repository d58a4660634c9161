"""The Sample sub-tab: components joined to handlers."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib_sdtrain.api.sampling import SampleService
from lib_sdtrain.api.sampling_form import OTHER, form_items, form_of
from lib_sdtrain.api.sampling_grid import NOTHING
from lib_sdtrain.errors import UserError
from lib_sdtrain.settings.sample import SampleRequest
from lib_sdtrain.ui.asking import Asking
from lib_sdtrain.ui.controls import raw, shown
from lib_sdtrain.ui.sample.layout import AS_FIRST, SampleParts, build_sample
from lib_sdtrain.ui.sample.views import notes_html, plan_html
from lib_sdtrain.ui.seam import listen, update
from lib_sdtrain.ui.texts import problems_html

_SHOWN_JOB = "() => [window.sdtrain ? window.sdtrain.jobId() : '']"
_FIRST = {"steps": 20, "sampler_name": "Euler a"}
_TOYBOX = {"prompt": "a photo of a cat on a beach", "width": 128, "height": 128}
"""What standalone begins with: something that toybox knows, at its size."""


class SampleTab:
    """Builds the sub-tab and attaches its handlers."""

    def __init__(self, service: SampleService) -> None:
        self.service = service
        first = _FIRST | (_TOYBOX if service.host.name == "standalone" else {})
        self.parts: SampleParts = build_sample(form_of(SampleRequest(**first)))
        self.asking = Asking("sample", self.parts.more["changed"])
        self.names = {component: name for name, component in self.parts.form.items()}
        self._attach_form()
        self._attach_infotext()
        self._attach_job()

    def _form(self, data: Mapping[Any, Any]) -> dict[str, Any]:
        return {name: _meant(name, data[component]) for component, name in self.names.items()}

    def _plan(self, data: Mapping[Any, Any]) -> str:
        return plan_html(self.service.outlook(self._form(data)))

    # the form

    def _attach_form(self) -> None:
        form, more = self.parts.form, self.parts.more

        def changed(data: Mapping[Any, Any]) -> dict[Any, Any]:
            answer = {more["plan"]: self._plan(data), more["hires"]: update(visible=bool(data[form["enable_hr"]]))}
            for axis in ("x", "y"):
                answer[form[f"{axis}_values"]] = update(visible=data[form[axis]] not in (None, "", NOTHING))
            return answer

        outputs = [more["plan"], more["hires"], form["x_values"], form["y_values"]]
        for component in form.values():
            kind = type(component).__name__
            if kind not in ("Textbox", "Number"):  # the page's script presses `changed` when typing pauses
                event = component.release if kind == "Slider" else component.input
                self.asking.ask(event)
        self.asking.answered_by(changed, set(self.names), outputs)
        opened = [form["checkpoint"], form["compare"], more["plan"]]
        self.asking.fill(more["load"].click, self._opened, set(self.names), opened)
        listen(more["refresh"].click, self._refreshed, None, [form["checkpoint"], form["compare"]])

    def _titles(self) -> list[str]:
        return [entry.title for entry in self.service.checkpoints()]

    def _opened(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        form, titles = self.parts.form, self._titles()
        chosen = data[form["checkpoint"]] or (titles[0] if titles else None)
        data = {**data, form["checkpoint"]: chosen}
        return {
            form["checkpoint"]: update(choices=titles, value=chosen), form["compare"]: update(choices=["", *titles]),
            self.parts.more["plan"]: self._plan(data),
        }

    def _refreshed(self) -> list[Any]:
        self.service.host.refresh()
        return [update(choices=self._titles()), update(choices=["", *self._titles()])]

    # infotexts

    def _attach_infotext(self) -> None:
        form, more = self.parts.form, self.parts.more
        inputs = {*self.names, more["infotext"], more["picture"]}
        outputs = [*form.values(), more["infotext"], more["message"], more["plan"], more["hires"]]

        def read(data: Mapping[Any, Any]) -> dict[Any, Any]:
            return self._read(data, data[more["infotext"]] or "")

        def dropped(data: Mapping[Any, Any]) -> dict[Any, Any]:
            try:
                text = self.service.read_picture(Path(data[more["picture"]].name))
            except UserError as error:
                return {more["message"]: problems_html(error.problems, "sdtrain_sample")}
            return {**self._read(data, text), more["infotext"]: text}

        for event in (more["read"].click, more["infotext"].blur, more["infotext"].submit):
            self.asking.fill(event, read, inputs, outputs)
        self.asking.fill(more["picture"].upload, dropped, inputs, outputs)

    def _read(self, data: Mapping[Any, Any], text: str) -> dict[Any, Any]:
        """Fill the boxes from an infotext; what it does not name goes back to the WebUI's defaults."""
        form, more = self.parts.form, self.parts.more
        if not text.strip():
            return {more["message"]: ""}
        try:
            reading = self.service.read(text)
        except UserError as error:
            return {more["message"]: problems_html(error.problems, "sdtrain_sample")}
        values = {name: _shown(name, value) for name, value in reading.values.items() if name in form}
        entry = self.service.entry_of(reading)
        if entry:
            values["checkpoint"] = entry.title
        new = {**{name: data[component] for name, component in form.items()}, **values}
        answer = {form[name]: update(value=value) for name, value in values.items()}
        planned = plan_html(self.service.outlook({name: _meant(name, value) for name, value in new.items()}))
        return {
            **answer, more["message"]: notes_html(reading.notes), more["plan"]: planned,
            more["hires"]: update(visible=bool(new["enable_hr"])),
        }

    # the job

    def _attach_job(self) -> None:
        more = self.parts.more

        def started(data: Mapping[Any, Any]) -> Any:
            try:
                self.service.start(self._form(data))
            except UserError as error:
                return problems_html(error.problems, "sdtrain_sample") if _only_busy(error) else self._plan(data)
            return update()

        def stop(job: str) -> None:
            self.service.runner.stop("now", job)

        listen(more["start"].click, started, set(self.names), [more["plan"]])
        listen(more["stop"].click, stop, [more["job"]], None, js=_SHOWN_JOB)


def _only_busy(error: UserError) -> bool:
    """Another job has the machine: nothing is wrong with the form, so its plan would not say why."""
    return all(problem.where == "sample" for problem in error.problems)


def _meant(name: str, value: Any) -> Any:
    """The form's value of what a box holds."""
    item = form_items().get(name)
    if item is None or name == OTHER:
        return value
    return None if value == AS_FIRST else raw(item, value)


def _shown(name: str, value: Any) -> Any:
    """What a box holds for a value of the form."""
    item = form_items().get(name)
    if item is None:
        return value
    if name in ("hr_sampler_name", "hr_scheduler"):
        return value or AS_FIRST
    return shown(item, value)
