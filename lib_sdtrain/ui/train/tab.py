"""The Train sub-tab: components joined to handlers."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lib_sdtrain.api.choice import Choice
from lib_sdtrain.api.services import Services
from lib_sdtrain.errors import UserError
from lib_sdtrain.ui.asking import WISHED, Asking, wish_answered
from lib_sdtrain.ui.seam import listen, update
from lib_sdtrain.ui.texts import problems_html
from lib_sdtrain.ui.train.concepts import CONCEPTS, Concepts
from lib_sdtrain.ui.train.form import CLASS_PROMPT, INSTANCE_DIR, PROMPT, default_values
from lib_sdtrain.ui.train.handlers import Opening, TrainHandlers, wish_of
from lib_sdtrain.ui.train.layout import NO_PRESET, TrainParts, build_train
from lib_sdtrain.ui.train.words import read_prompts, reading_html

CHECKPOINT, NAME = "model.checkpoint", "save.name"
COPY = "(text, name) => { window.sdtrain.copied('%s', text); }"
DOWNLOAD = "(text, name) => { window.sdtrain.download(`${name || 'sdtrain'}.yaml`, text); }"


class TrainTab:
    """Builds the sub-tab and attaches its handlers."""

    def __init__(self, services: Services) -> None:
        service = self.service = services.train
        self.handlers = TrainHandlers(services)
        self.hosted = service.host.name != "standalone"
        self.parts: TrainParts = build_train(default_values(), self.hosted, service.host.hides_folders)
        self.asking = Asking("train", self.parts.replan)
        self.paths = {control.component: path for path, control in self.parts.controls.items()}
        self._attach_form()
        self._attach_words()
        self._attach_concepts()
        self._attach_presets()
        self._attach_run()
        self._attach_filling()

    # settings from elsewhere

    def _attach_filling(self) -> None:
        parts = self.parts
        held = self.held

        def filled(asked: str, *shown: Any) -> dict[Any, Any]:
            data = dict(zip(held, shown, strict=True))
            try:
                opening = self._from_elsewhere(asked, data)
            except UserError as error:
                return {parts.message: problems_html(error.problems)}
            answer = {**self._shown(opening.preset, opening.values), parts.message: opening.message}
            answer[self._component(CHECKPOINT)] = update(choices=self._titles(), value=opening.values[CHECKPOINT])
            return answer | {parts.preset: opening.preset, parts.base_preset: opening.preset}

        outputs = [*self._everything, parts.preset, parts.base_preset, parts.message]
        wish_answered("train", self.asking.fill(parts.fill.click, filled, [parts.source, *held], outputs, js=WISHED))

    def _from_elsewhere(self, asked: str, data: Mapping[Any, Any]) -> Opening:
        wish, preset = wish_of(asked), data[self.parts.preset]
        if "fit" in wish:
            return self.handlers.fitted(self.handlers.name_of(preset), wish["fit"], self._values(data))
        if "preview" not in wish:
            return self.handlers.filled_from(asked)
        values = self.handlers.with_preview(str(wish["preview"]), self._values(data))
        return Opening(preset, values, "<p class='sdtrain-note'>One more preview; see Previews.</p>")

    # reading and writing the form

    @property
    def _inputs(self) -> set[Any]:
        return {*self.paths, self.parts.preset, self.parts.base_preset, self.parts.concepts}

    @property
    def held(self) -> list[Any]:
        """The components that hold what is chosen, for another sub-tab to read."""
        return [*self.paths, self.parts.preset, self.parts.concepts]

    def chosen(self, data: Mapping[Any, Any]) -> Choice:
        """What the components of `held` say. Raises `UserError` for what is no preset."""
        return self.handlers.form.choice(self.handlers.name_of(data[self.parts.preset]), self._values(data))

    def _values(self, data: Mapping[Any, Any]) -> dict[str, Any]:
        values = {path: data[component] for component, path in self.paths.items()}
        return {**values, CONCEPTS: data[self.parts.concepts]}

    def _updates(self, values: Mapping[str, Any]) -> dict[Any, Any]:
        answer = {self._component(path): update(value=value) for path, value in values.items() if path != CONCEPTS}
        return answer | (self._concept_updates(Concepts.of(values)) if CONCEPTS in values else {})

    def _concept_updates(self, concepts: Concepts) -> dict[Any, Any]:
        titles, several = concepts.titles(), len(concepts.entries) > 1
        return {
            self.parts.concepts: concepts.as_state(), self.parts.remove_concept: update(visible=several),
            self.parts.concept: update(choices=titles, value=titles[concepts.index], visible=several),
        }

    def _views(self, preset: str, values: Mapping[str, Any]) -> dict[Any, Any]:
        return {
            self.parts.plan: self.handlers.plan(preset, values),
            self.parts.thumbnails: self.handlers.thumbnails(str(values.get(INSTANCE_DIR) or "")),
            self.parts.forget: update(visible=self.handlers.changed(preset, values)),
        }

    @property
    def _view_parts(self) -> list[Any]:
        return [self.parts.plan, self.parts.thumbnails, self.parts.forget]

    @property
    def _concept_parts(self) -> list[Any]:
        return [self.parts.concepts, self.parts.concept, self.parts.remove_concept]

    @property
    def _everything(self) -> list[Any]:
        """All that another set of values changes."""
        return [*self.paths, *self._concept_parts, *self._view_parts, *self._word_parts, self.parts.idle]

    def _shown(self, preset: str, values: Mapping[str, Any]) -> dict[Any, Any]:
        """The form with other values in it."""
        shown = {**self._updates(values), **self._views(preset, values), **self._words(values)}
        return shown | {self.parts.idle: self.handlers.idle(preset, values)}

    def _words(self, values: Mapping[str, Any]) -> dict[Any, Any]:
        found = read_prompts(str(values[PROMPT]), str(values[CLASS_PROMPT]))
        reading = reading_html(found.identifier, found.class_word)
        answers = (found.identifier, found.class_word, found.keep_class, reading)
        return dict(zip(self._word_parts, answers, strict=True))

    def _attach_form(self) -> None:
        def changed(data: Mapping[Any, Any]) -> dict[Any, Any]:
            return self._views(data[self.parts.preset], self._values(data))

        def idle(data: Mapping[Any, Any]) -> str:
            return self.handlers.idle(data[self.parts.preset], self._values(data))

        for control in self.parts.controls.values():
            for event in _settling_events(control.component):
                self.asking.ask(event)
        self.asking.answered_by(changed, self._inputs, self._view_parts)
        listen(self.parts.replan.click, idle, self._inputs, [self.parts.idle])  # a plan may take its time
        opened = [*self._everything, self.parts.preset, self.parts.base_preset, self.parts.message]
        self.asking.fill(self.parts.load.click, self._opened, None, opened)
        self.asking.fill(self.parts.ended.click, self._ended, self._inputs,
                   [self._component(CHECKPOINT), self._component(NAME), *self._view_parts])  # fmt: skip
        listen(self.parts.refresh.click, self._refreshed, None, [self._component(CHECKPOINT)])
        listen(self.parts.add_toybox.click, self._toybox_added, None, [self.parts.message, self._component(CHECKPOINT)])
        self.asking.fill(self.parts.uploads.upload, self._dropped, {*self._inputs, self.parts.uploads},
                   [self._component(INSTANCE_DIR), self.parts.message, *self._view_parts])  # fmt: skip

    @property
    def _word_parts(self) -> list[Any]:
        return [self.parts.identifier, self.parts.class_word, self.parts.keep_class, self.parts.reading]

    def _component(self, path: str) -> Any:
        return self.parts.controls[path].component

    def _opened(self) -> dict[Any, Any]:
        """A page was opened: today's checkpoints and presets, and the settings of the last start."""
        opening = self.handlers.opening()
        answer = self._shown(opening.preset, opening.values)
        answer[self._component(CHECKPOINT)] = update(choices=self._titles(), value=opening.values[CHECKPOINT])
        answer[self.parts.preset] = update(choices=self._preset_titles(), value=opening.preset)
        return answer | {self.parts.base_preset: opening.preset, self.parts.message: opening.message}

    def _ended(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """A run has ended: there may be a new checkpoint, and its name is taken now."""
        self.service.host.refresh()
        values = self.handlers.form.with_free_name(self._values(data))
        return {
            self._component(CHECKPOINT): update(choices=self._titles()),
            self._component(NAME): update(value=values[NAME]), **self._views(data[self.parts.preset], values),
        }

    def _titles(self) -> list[str]:
        return [entry.title for entry in self.service.checkpoints()]

    def _preset_titles(self) -> list[str]:
        presets = self.service.presets
        return [NO_PRESET, *map(presets.title, presets.names())]

    def _refreshed(self) -> Any:
        self.service.host.refresh()
        return update(choices=self._titles())

    def _toybox_added(self) -> tuple[str, Any]:
        return self.handlers.add_toybox(), update(choices=self._titles())

    def _dropped(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        folder, message = self.handlers.drop(data[self.parts.uploads])
        values = self._values(data)
        if folder:
            values[INSTANCE_DIR] = folder
        return {
            self._component(INSTANCE_DIR): update(value=values[INSTANCE_DIR]), self.parts.message: message,
            **self._views(data[self.parts.preset], values),
        }

    # the words that call the subject

    def _attach_words(self) -> None:
        words = (self.parts.identifier, self.parts.class_word, self.parts.keep_class)

        def changed(data: Mapping[Any, Any]) -> dict[Any, Any]:
            found, reading = self.handlers.words(*(data[word] for word in words))
            return {**self._updates(found), self.parts.reading: reading}

        outputs = [self._component(PROMPT), self._component(CLASS_PROMPT), self.parts.reading]
        for word in words:
            for event in _settling_events(word):
                self.asking.ask(self.asking.fill(event, changed, set(words), outputs))

    # several subjects

    def _attach_concepts(self) -> None:
        parts = self.parts
        inputs = {*self._inputs, parts.concept}

        def attach(event: Any, change: Callable[[Concepts, str], Concepts]) -> None:
            def changed(data: Mapping[Any, Any]) -> dict[Any, Any]:
                values = self._values(data)
                concepts = change(Concepts.of(values), str(data[parts.concept]))
                values |= {**concepts.controls(), CONCEPTS: concepts.as_state()}
                return self._shown(data[parts.preset], values)

            self.asking.fill(event, changed, inputs, self._everything)

        attach(parts.concept.input, lambda concepts, title: concepts.chosen(title))
        attach(parts.add_concept.click, lambda concepts, title: concepts.added())
        attach(parts.remove_concept.click, lambda concepts, title: concepts.removed())

    # presets and copies

    def _attach_presets(self) -> None:
        parts = self.parts

        def chosen(data: Mapping[Any, Any]) -> dict[Any, Any]:
            new = data[parts.preset]
            try:
                values = self.handlers.choose_preset(data[parts.base_preset], new, self._values(data))
            except UserError as error:
                return {parts.message: problems_html(error.problems)}
            return {parts.base_preset: new, parts.message: "", **self._shown(new, values)}

        def forgotten(data: Mapping[Any, Any]) -> dict[Any, Any]:
            preset = data[parts.preset]
            try:
                return {parts.message: "", **self._shown(preset, self.handlers.untouched(preset))}
            except UserError as error:
                return {parts.message: problems_html(error.problems)}

        def saved(data: Mapping[Any, Any]) -> dict[Any, Any]:
            message = self.handlers.save_preset(data[parts.preset_name], data[parts.preset], self._values(data))
            return {parts.kept: message, parts.preset: update(choices=self._preset_titles())}

        told = [*self._everything, parts.message]
        self.asking.fill(parts.preset.input, chosen, self._inputs, [*told, parts.base_preset])
        self.asking.fill(parts.forget.click, forgotten, self._inputs, told)
        listen(parts.save_preset.click, saved, {*self._inputs, parts.preset_name}, [parts.kept, parts.preset])
        listen(parts.delete_preset.click, self._deleted, [parts.preset], [parts.kept, parts.preset])
        for button, make, then in (
            (parts.yaml_button, self.handlers.yaml, COPY % parts.yaml_button.elem_id),
            (parts.command_button, self.handlers.command, COPY % parts.command_button.elem_id),
            (parts.file_button, self.handlers.yaml, DOWNLOAD),
        ):
            done = listen(button.click, self._copier(make), self._inputs, [parts.copied, parts.copied_text, parts.kept])
            listen(done.then, None, [parts.copied_text, self._component(NAME)], None, js=then)

    def _copier(self, make: Callable[[str, Mapping[str, Any]], str]) -> Callable[[Mapping[Any, Any]], Any]:
        """The text to copy; with a mistake in the form there is none, and the mistake is told instead."""

        def copied(data: Mapping[Any, Any]) -> Any:
            try:
                text = make(data[self.parts.preset], self._values(data))
            except UserError as error:
                return [update(visible=False), "", problems_html(error.problems)]
            return [update(value=text, visible=True), text, ""]

        return copied

    def _deleted(self, preset: str) -> list[Any]:
        message, gone = self.handlers.delete_preset(preset)
        titles = self._preset_titles()
        return [message, update(choices=titles, value=NO_PRESET) if gone else update(choices=titles)]

    # the run

    def _attach_run(self) -> None:
        parts = self.parts

        def started(data: Mapping[Any, Any]) -> Any:
            mistakes = self.handlers.start(data[parts.preset], self._values(data))
            return mistakes or update()

        def queued(data: Mapping[Any, Any]) -> dict[Any, Any]:
            shown, name = self.handlers.enqueue(data[parts.preset], self._values(data))
            return {parts.plan: shown, self._component(NAME): name}

        listen(parts.start.click, started, self._inputs, [parts.plan])
        listen(parts.enqueue.click, queued, self._inputs, [parts.plan, self._component(NAME)])
        shown_job = "() => [window.sdtrain ? window.sdtrain.jobId() : '']"
        for how, button in parts.stops.items():
            listen(button.click, self._stopper(how), [parts.job], None, js=shown_job)
        listen(parts.resume.click, self.handlers.resume_last, [parts.job], [parts.resumed], js=shown_job)

    def _stopper(self, how: str) -> Callable[[str], None]:
        def stop(job: str) -> None:
            self.handlers.stop(how, job)

        return stop


def _settling_events(component: Any) -> list[Any]:
    """The events that tell that a person has settled on a value, not every key on the way there."""
    kind = type(component).__name__
    if kind in ("Textbox", "Number") and hasattr(component, "blur"):
        return [component.blur, component.submit]
    if kind == "Slider":
        return [component.release]
    return [component.input]


