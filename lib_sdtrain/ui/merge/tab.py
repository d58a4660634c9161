"""The Merge sub-tab: components joined to handlers."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lib_sdtrain.api.merging import MergeService
from lib_sdtrain.ui.asking import Asking
from lib_sdtrain.ui.merge.handlers import CHANGING, FIRST_METHOD, LIVE, MergeHandlers
from lib_sdtrain.ui.merge.layout import MergeParts, build_merge
from lib_sdtrain.ui.seam import listen, update

_SHOWN_JOB = "() => [window.sdtrain ? window.sdtrain.jobId() : '']"
_MODELS = ("a", "b", "c", "model")
_TEXTS = ("weights_alpha", "weights_beta")


class MergeTab:
    """Builds the sub-tab and attaches its handlers."""

    def __init__(self, service: MergeService) -> None:
        self.service = service
        self.handlers = MergeHandlers(service)
        self.parts: MergeParts = build_merge(service.host.name != "standalone", service.live.available)
        self.form, self.more = self.parts.form, self.parts.more
        self.asking = Asking("merge", self.more["weighed"])
        self.names = {component: name for name, component in self.form.items()}
        if LIVE in self.more:
            self.names[self.more[LIVE]] = LIVE
        self._attach_opening()
        self._attach_form()
        self._attach_weights()
        self._attach_jobs()
        self._attach_history()
        if LIVE in self.more:
            self._attach_live()

    # reading and writing the form

    def _values(self, data: Mapping[Any, Any]) -> dict[str, Any]:
        return {name: data[component] for component, name in self.names.items()}

    def _of_method(self, title: str) -> dict[Any, Any]:
        """Show what the method uses, and nothing else."""
        return {self.form[name]: update(visible=shown) for name, shown in self.handlers.visible(title).items()}

    # a page was opened, a job ended

    def _attach_opening(self) -> None:
        choices = [self.form[name] for name in (*_MODELS, "method")]
        more = [self.more[name] for name in ("preset", "again", "report", "difference")]
        self._change(self.more["load"].click, self._opened, set(self.names), [*choices, *more])
        ended = [self.form[name] for name in _MODELS]
        ended += [self.more[name] for name in ("again", "report", "difference")]
        self._change(self.more["ended"].click, self._ended, set(self.names), ended)
        listen(self.more["look"].click, self._looked, None, [self.form[name] for name in _MODELS])

    def _titles(self) -> list[str]:
        return self.service.files.titles()

    def _opened(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        values, titles = self._values(data), self._titles()
        current = self.service.host.current()
        values["a"] = values["a"] or (current.title if current else None)
        values["method"] = values["method"] or self.handlers.method_title(FIRST_METHOD)
        answer = {self.form[name]: update(choices=titles) for name in _MODELS}
        answer[self.form["a"]] = update(choices=titles, value=values["a"])
        methods = [method["title"] for method in self.service.methods()]
        answer[self.form["method"]] = update(choices=methods, value=values["method"])
        answer[self.more["preset"]] = update(choices=self.handlers.preset_names(values["presets"] or ""))
        return answer | self._ended_views(values)

    def _ended(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        titles = self._titles()
        return {self.form[name]: update(choices=titles) for name in _MODELS} | self._ended_views(self._values(data))

    def _ended_views(self, values: Mapping[str, Any]) -> dict[Any, Any]:
        labels = self.service.history.labels()
        return {
            self.more["again"]: update(choices=[*labels, *self._titles()]),
            self.more["report"]: self.handlers.report(),
            self.more["difference"]: self._difference(values),
        }

    def _difference(self, values: Mapping[str, Any]) -> str:
        return self.handlers.difference(values["a"], values["b"], values["blocks"])

    def _looked(self) -> list[Any]:
        self.service.host.refresh()
        return [update(choices=self._titles()) for _ in _MODELS]

    # the form

    def _attach_form(self) -> None:
        for name, component in self.form.items():
            if name not in ("a", "b", "method", *_TEXTS):  # the page's script asks when the texts have settled
                for event in _settling_events(component):
                    self.asking.ask(event)
        self.asking.answered_by(self._planned, set(self.names), [self.more["plan"], self.more["about"]])
        views = [self.more["unet"], self.more["notes"], self.more["difference"], *(self.form[name] for name in _TEXTS)]
        self._change(self.form["a"].input, self._a_chosen, set(self.names), views)
        self._change(self.form["b"].input, self._b_chosen, set(self.names), [self.more["difference"]])
        self._change(self.more["swap"].click, self._swapped, set(self.names), [self.form["a"], self.form["b"], *views])
        self._change(self.more["as_a"].click, self._result_as_a, set(self.names), [self.form["a"], *views])
        shown = [self.form[name] for name in CHANGING]
        self._change(self.form["method"].input, self._method_chosen, set(self.names), shown)

    def _change(self, event: Any, fn: Callable[..., Any], inputs: Any, outputs: Any) -> None:
        """A handler that changes the form; the plan is asked for with what stands there then."""
        self.asking.ask(self.asking.fill(event, fn, inputs, outputs))

    def _planned(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        values = self._values(data)
        return {self.more["plan"]: self.handlers.plan(values), self.more["about"]: self.handlers.about(values)}

    def _method_chosen(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        values = self._values(data)
        beta = self.handlers.beta_for(values["method"], values["weights_beta"])
        shown = self.handlers.visible(values["method"])["weights_beta"]
        return self._of_method(values["method"]) | {self.form["weights_beta"]: update(value=beta, visible=shown)}

    def _b_chosen(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        return {self.more["difference"]: self._difference(self._values(data))}

    def _a_chosen(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        return self._fitted(self._values(data))

    def _fitted(self, values: dict[str, Any]) -> dict[Any, Any]:
        """Sliders and weights for as many blocks as A has."""
        unet, texts, note = self.handlers.fitted(values["a"], [values[name] for name in _TEXTS])
        views = {"unet": unet, "notes": note, "difference": self._difference(values)}
        fitted = {self.form[name]: text for name, text in zip(_TEXTS, texts, strict=True)}
        return {**{self.more[name]: shown for name, shown in views.items()}, **fitted}

    def _swapped(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        values = self._values(data)
        values["a"], values["b"] = values["b"], values["a"]
        return {self.form["a"]: values["a"], self.form["b"]: values["b"], **self._fitted(values)}

    def _result_as_a(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        values, newest = self._values(data), self.handlers.newest()
        if newest:
            values["a"] = self.service.files.title(Path(newest["out"]))
        return {self.form["a"]: update(choices=self._titles(), value=values["a"]), **self._fitted(values)}

    # weights

    def _attach_weights(self) -> None:
        form, more = self.form, self.more
        texts = [form[name] for name in _TEXTS]

        def chosen(preset: str, active: str, a: str, extra: str, *old: str) -> tuple[Any, ...]:
            text, note = self.handlers.preset(preset, a, extra)
            new = [text if text and name.endswith(active) else was for name, was in zip(_TEXTS, old, strict=True)]
            return (*new, note)

        self.asking.fill(
            more["preset"].input, chosen, [more["preset"], more["active"], form["a"], form["presets"], *texts],
            [*texts, more["notes"]],
        )

        def found(extra: str) -> Any:
            return update(choices=self.handlers.preset_names(extra or ""))

        for event in _settling_events(form["presets"]):
            listen(event, found, [form["presets"]], [more["preset"]])

        def rolled(seed: str, low: float, high: float, over: str, active: str, *old: str) -> tuple[Any, ...]:
            beta = active == "beta"
            text, used, note = self.handlers.roll(old[beta], seed or "", over, (low or 0.0, high or 0.0), beta)
            new = [text if text and index == beta else was for index, was in enumerate(old)]
            return (*new, used, note)

        dice = [more[name] for name in ("dice_seed", "dice_low", "dice_high", "dice_over", "active")]
        outputs = [*texts, more["dice_seed"], more["notes"]]
        self.asking.fill(more["roll"].click, rolled, [*dice, *texts], outputs)

        def saved(name: str, active: str, extra: str, *old: str) -> tuple[Any, ...]:
            note = self.handlers.save_preset(name, old[active == "beta"])
            return note, update(choices=self.handlers.preset_names(extra or ""))

        listen(more["save_preset"].click, saved, [more["preset_name"], more["active"], form["presets"], *texts],
               [more["notes"], more["preset"]])  # fmt: skip

    # jobs

    def _attach_jobs(self) -> None:
        def started(data: Mapping[Any, Any]) -> Any:
            return self.handlers.start(self._values(data)) or update()

        def compared(a: str, b: str, convention: str) -> Any:
            return self.handlers.compare(a, b, convention) or update()

        listen(self.more["start"].click, started, set(self.names), [self.more["plan"]])
        models = [self.form[name] for name in ("a", "b", "blocks")]
        listen(self.more["compare"].click, compared, models, [self.more["difference"]])
        listen(self.more["stop"].click, self.handlers.stop, [self.more["job"]], None, js=_SHOWN_JOB)
        drawing = {component for name, component in self.more.items() if name.startswith("pictures_")}
        for name in ("draw", "draw_result"):
            listen(self.more[name].click, self._drawn, set(self.names) | drawing, [self.more["pictures_message"]])

    def _drawn(self, data: Mapping[Any, Any]) -> str:
        drawing = {name: data[component] for name, component in self.more.items() if component in data}
        return self.handlers.draw(self._values(data), drawing)

    # earlier merges

    def _attach_history(self) -> None:
        self._change(
            self.more["load_again"].click, self._filled, {*self.names, self.more["again"]}, self.filled_parts
        )

    @property
    def filled_parts(self) -> list[Any]:
        """What settings from elsewhere change."""
        return [*self.form.values(), *(self.more[name] for name in ("again_message", "unet", "notes", "difference"))]

    def _filled(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        found, message = self.handlers.again(data[self.more["again"]])
        filled = self._filled_with(found, data) if found else {}
        return {**filled, self.more["again_message"]: message}

    def _filled_with(self, found: Mapping[str, Any], data: Mapping[Any, Any]) -> dict[Any, Any]:
        values = self._values(data) | {name: value for name, value in found.items() if name in self.form}
        values["name"] = ""
        shown = self.handlers.visible(values["method"])
        changes = {
            component: update(value=values[name], **({"visible": shown[name]} if name in shown else {}))
            for name, component in self.form.items() if name not in _TEXTS
        }  # fmt: skip
        fitted = self._fitted(values)
        for name in _TEXTS:
            fitted[self.form[name]] = update(value=fitted[self.form[name]], visible=shown[name])
        return {**changes, **fitted}

    # live merges

    def _attach_live(self) -> None:
        plan, live = self.more["plan"], self.more[LIVE]

        def switched(follows: bool) -> Any:
            return update() if follows else self.handlers.revert_live() or update()

        def saved(name: str) -> Any:
            return self.handlers.save_live(name) or update()

        def reverted() -> list[Any]:
            return [self.handlers.revert_live() or update(), False]

        self.asking.ask_where(listen(live.input, switched, [live], [plan]).then, live)  # what is asked is followed
        listen(self.more["live_save"].click, saved, [self.form["name"]], [plan])
        listen(self.more["live_revert"].click, reverted, None, [plan, live])
        self._change(self.more["live_fill"].click, self._followed, set(self.names), [*self.filled_parts, live])

    def _followed(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """The form of what the loaded model shows, ticked, so that it follows from here on."""
        form = self.service.live.form
        if not form:
            return {self.more[LIVE]: False}
        return {**self._filled_with(self.handlers.filled(form), data), self.more[LIVE]: True}


def _settling_events(component: Any) -> list[Callable[..., Any]]:
    """The events that tell that a person has settled on a value, not every key on the way there."""
    kind = type(component).__name__
    if kind in ("Textbox", "Number") and hasattr(component, "blur"):
        return [component.blur, component.submit]
    return [component.release] if kind == "Slider" else [component.input]
