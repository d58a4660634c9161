"""What the Merge sub-tab's controls do. Every handler takes plain values and returns what to show."""
from __future__ import annotations

import html
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_sdtrain.api.merging import OF_METHODS, MergeOutlook, MergeService
from lib_sdtrain.api.merging_pictures import PicturePlan
from lib_sdtrain.api.merging_presets import converted, rolled
from lib_sdtrain.errors import Problem, Problems, UserError
from lib_sdtrain.merge.blocks import SD
from lib_sdtrain.merge.elements import COLUMNS
from lib_sdtrain.ui.controls import raw
from lib_sdtrain.ui.merge.figures import difference_html, method_html
from lib_sdtrain.ui.merge.layout import AS_A, ITEMS, ROLL_OVER
from lib_sdtrain.ui.merge.u_view import u_html
from lib_sdtrain.ui.merge.views import PANEL, note_html, outlook_html, report_html
from lib_sdtrain.ui.texts import problems_html

FIRST_METHOD = "weighted_sum"
CHANGING = ("b", "c", "model", "weights_alpha", "weights_beta", "elements", *OF_METHODS)
"""The controls that not every method uses."""

LIVE = "live"
"""The tick that has the loaded model follow."""

_SEEDS = 2**31


@dataclass(frozen=True)
class MergeHandlers:
    """Answers of the Merge sub-tab. A form is what its controls hold, by name."""

    service: MergeService

    def form(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The service's form of what the controls hold."""
        form = {name: _raw(name, value) for name, value in values.items() if name != LIVE}
        return {name: value for name, value in form.items() if value not in (None, "", [])}

    def plan(self, values: Mapping[str, Any]) -> str:
        """What a merge would do, or what is wrong; where `live` is ticked and nothing is, the loaded model follows."""
        outlook = self._outlook(values)
        if values.get(LIVE) and not outlook.problems:
            try:
                self.service.live.show(self.form(values), checked=True)
            except UserError as error:
                outlook = MergeOutlook(problems=tuple(error.problems))
        return outlook_html(outlook)

    def _outlook(self, values: Mapping[str, Any]) -> MergeOutlook:
        try:
            return self.service.outlook(self.form(values))
        except UserError as error:
            return MergeOutlook(problems=tuple(error.problems))

    # method

    def method_title(self, name: str) -> str:
        """What people call a method."""
        return self.service.method(name)["title"]

    def visible(self, title: str) -> dict[str, bool]:
        """Which controls a method uses."""
        method = self.service.method(title or FIRST_METHOD)
        params = method["params"]
        used = {
            "b": method["models"] > 1, "c": method["models"] > 2 or method["many"], "model": method["many"],
            "weights_alpha": "alpha" in params, "weights_beta": method["uses_beta"], "elements": "alpha" in params,
            **{name: name in params or (name == "seed" and "generator" in params) for name in OF_METHODS},
        }  # fmt: skip
        return {name: used[name] for name in CHANGING}

    def beta_for(self, title: str, text: str) -> str:
        """The second weights for another method: its default, unless a person has shaped them already."""
        fields = [part.strip() for part in (text or "").split(",")]
        default = self.service.method(title or FIRST_METHOD)["beta"]
        return text if default is None or len(set(fields)) > 1 else ",".join([f"{default:g}"] * len(fields))

    def about(self, values: Mapping[str, Any]) -> str:
        """The method with its figure, at the weights' mean."""
        method = self.service.method(values.get("method") or FIRST_METHOD)
        alpha, beta = (_mean(values.get(f"weights_{name}")) for name in ("alpha", "beta"))
        try:
            example = self.service.example(method["name"], alpha, beta, self.form(values))
        except UserError:
            example = self.service.example(method["name"], alpha, beta, {})
        return method_html(method, example)

    # weights

    def blocks(self, model: str) -> tuple[list[str], int]:
        """Names of A's blocks and the size of its pictures; SD1's while it cannot be read (the plan says why)."""
        if not model:
            return list(SD.names), 512
        try:
            found = self.service.blocks(model)
        except UserError:
            return list(SD.names), 512
        return found["names"], found["resolution"]

    def fitted(self, model: str, texts: Sequence[str]) -> tuple[str, list[str], str]:
        """The sliders for model A, the weights' texts for as many blocks as it has, and a note on what that did."""
        names, resolution = self.blocks(model)
        fitted, notes = [], []
        for text in texts:
            try:
                text, told = converted(text, len(names))  # wrong text stays, with its mistake in the plan
                notes += told
            except UserError:
                pass
            fitted.append(text)
        return u_html(names, resolution), fitted, note_html(list(dict.fromkeys(notes)))

    def preset(self, name: str, model: str, extra: str) -> tuple[str | None, str]:
        """A preset's weights as text for A's blocks, and what to say about them."""
        try:
            text, notes = self.service.presets.text(name, len(self.blocks(model)[0]), extra)
        except UserError as error:
            return None, problems_html(error.problems, PANEL)
        return text, note_html(notes)

    def preset_names(self, extra: str = "") -> list[str]:
        """Names to choose from; broken preset files are the plan's matter."""
        try:
            return self.service.presets.names(extra)
        except UserError:
            return self.service.presets.names()

    def save_preset(self, name: str, text: str) -> str:
        """Keep the weights; says how it went."""
        try:
            kept = self.service.presets.save(name or "", text)
        except UserError as error:
            return problems_html(error.problems, PANEL)
        return f"<p class='sdtrain-note'>Saved as preset {html.escape(kept)}.</p>"

    def roll(
        self, text: str, seed: str, over: str, bounds: tuple[float, float], beta: bool
    ) -> tuple[str | None, str, str]:
        """Rolled weights, the seed that was used, and what to say."""
        used = seed.strip() or str(secrets.randbelow(_SEEDS))
        try:
            number = _seed(used)
            count = len([part for part in text.split(",") if part.strip()])
            rolled_text = rolled(text, _positions(over, count), number, *bounds, beta)
        except UserError as error:
            return None, seed, problems_html(error.problems, PANEL)
        return rolled_text, used, f"<p class='sdtrain-note'>Rolled with seed {number}.</p>"

    # jobs

    def start(self, values: Mapping[str, Any]) -> str:
        """Start the merge; empty when it began, else what is wrong."""
        try:
            self.service.start(self.form(values))
        except UserError as error:
            return outlook_html(MergeOutlook(problems=tuple(error.problems)))
        return ""

    def save_live(self, name: str) -> str:
        """Write what the loaded model shows to a file; empty when that began, else what is wrong."""
        form = self.service.live.form
        try:
            if not form:
                raise UserError("the loaded model is as in its file", where="live", fix="there is nothing to save")
            self.service.start({**form, "name": name or ""})
        except UserError as error:
            return outlook_html(MergeOutlook(problems=tuple(error.problems)))
        return ""

    def revert_live(self) -> str:
        """Have the loaded model's own weights back; empty when that began, else what is wrong."""
        try:
            self.service.live.revert()
        except UserError as error:
            return outlook_html(MergeOutlook(problems=tuple(error.problems)))
        return ""

    def compare(self, a: str, b: str, convention: str) -> str | None:
        """Start the comparison; None when it began, else what is wrong (or the answer, when it is known)."""
        if a and b and self.service.difference(a, b, convention):
            return self.difference(a, b, convention)
        try:
            self.service.start_difference(a or "", b or "", convention)
        except UserError as error:
            return problems_html(error.problems, PANEL)
        return None

    def difference(self, a: str | None, b: str | None, convention: str) -> str:
        """The known difference of A and B."""
        document = self.service.difference(a, b, convention) if a and b else None
        return difference_html(document, [*COLUMNS, "other"])

    def draw(self, values: Mapping[str, Any], drawing: Mapping[str, Any]) -> str:
        """Start drawing; empty when it began, else what is wrong."""
        numbers, problems = {}, Problems()
        for name, least in (("seed", 0), ("steps", 1), ("size", 0), ("clip_skip", 1)):
            value = drawing.get(f"pictures_{name}")
            if value is None or value < least:
                problems.add(f"a whole number from {least} is needed", where=f"pictures_{name}")
            else:
                numbers[name] = int(value)
        try:
            problems.raise_if_any()
            newest = next(iter(self.service.history.entries()), None)
            merged = newest["out"] if newest and Path(newest["out"]).is_file() else ""
            plan = PicturePlan(drawing["pictures_prompts"] or "", drawing["pictures_negative"] or "", **numbers,
                               merged=merged)  # fmt: skip
            self.service.start_pictures(self.form(values), plan)
        except UserError as error:
            return problems_html(error.problems, PANEL)
        return ""

    def stop(self, job: str) -> None:
        """Stop the job that the page shows; a merge leaves nothing behind."""
        self.service.runner.stop("now", job or None)

    # earlier merges

    def again(self, source: str) -> tuple[dict[str, Any], str]:
        """The controls' values of an earlier merge, and what to say."""
        if not (source or "").strip():
            return {}, problems_html([Problem("choose a merge, or name a merged file", "again")], PANEL)
        try:
            form, notes = self.service.again(source)
        except UserError as error:
            return {}, problems_html([Problem(p.what, p.where or "again", p.fix) for p in error.problems], PANEL)
        return self.filled(form), note_html(notes)

    def filled(self, form: Mapping[str, Any]) -> dict[str, Any]:
        """The controls' values for a form."""
        values = {name: _shown(value) for name, value in form.items() if name != "name"}
        return {**values, "method": self.method_title(str(form.get("method") or FIRST_METHOD))}

    def newest(self) -> dict[str, Any] | None:
        """The last merge, with its file's name."""
        entry = next(iter(self.service.history.entries()), None)
        return {**entry, "name": Path(entry["out"]).name} if entry else None

    def report(self) -> str:
        """Which tensors took which weight in the last merge."""
        return report_html(self.newest())


def _raw(name: str, value: Any) -> Any:
    if name == "dtype":
        return None if value == AS_A else value
    if name in ("name", "lora", "model", "presets") or name not in ITEMS:
        return value
    return raw(ITEMS[name], value)


def _shown(value: Any) -> Any:
    return "\n".join(value) if isinstance(value, tuple) else value


def _mean(text: Any) -> float:
    """The mean of weights; 0.5 while they cannot be read."""
    try:
        numbers = [float(part) for part in str(text or "").split(",") if part.strip()]
    except ValueError:
        return 0.5
    return sum(numbers) / len(numbers) if numbers else 0.5


def _seed(text: str) -> int:
    if not text.isdigit() or int(text) >= 2**32:
        fix = "a whole number from 0 to 4294967295, or nothing for a new one"
        raise UserError(f"{text!r} is not a seed", where="dice_seed", fix=fix)
    return int(text)


def _positions(over: str, count: int) -> list[int]:
    """Which of `count` weights to roll."""
    middle = count // 2
    return {
        ROLL_OVER[1]: list(range(1, count)), ROLL_OVER[2]: list(range(1, middle)),
        ROLL_OVER[3]: list(range(middle + 1, count)),
    }.get(over, list(range(count)))  # fmt: skip
