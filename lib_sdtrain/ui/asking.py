"""How the page asks: a form for its plan, its buttons for what they wish.

Gradio leaves out an event whose like is still on its way, and answers may come in any order. So the page's script
(`sdtrain_ask.js`) has one question of a form on its way at a time, and asks another when the form has changed
meanwhile; and it tells each wish after the answer to the one before.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lib_sdtrain.ui.seam import listen

ACTS = "sdtrain-acts"  # the class of controls that go by what the form holds
AS_HELD = "(...held) => held"
WISHED = "(wish, ...rest) => [window.sdtrain.asked, ...rest]"


class Asking:
    """The questions of one form: `form` is its name in the page's script, `button` what the script presses to ask."""

    def __init__(self, form: str, button: Any) -> None:
        self.form, self.button = form, button
        self._fillings = 0

    def _js(self, act: str, which: str = "") -> str:
        return f"() => {{ window.sdtrain.forms.{self.form}.{act}({which}); }}"

    def answered_by(self, fn: Callable[..., Any], inputs: Any, outputs: Any) -> None:
        """What answers the form's question."""
        listen(listen(self.button.click, fn, inputs, outputs).then, None, js=self._js("answered"))

    def ask(self, event: Any) -> None:
        """Ask after an event: a control has settled, or an answer of the server (its `then`) has changed some."""
        listen(event, None, js=self._js("changed"))

    def ask_where(self, event: Any, tick: Any) -> None:
        """Ask after an event where a box is ticked."""
        listen(event, None, [tick], js=f"(on) => {{ if (on) window.sdtrain.forms.{self.form}.changed(); }}")

    def fill(self, event: Any, fn: Callable[..., Any], inputs: Any, outputs: Any, js: str = AS_HELD) -> Any:
        """A handler that puts other values into the form: what is asked already is asked anew, what is typed meanwhile
        stands, and what is pressed of `ACTS` waits for them. `js` makes the inputs in the page. Returns the event that
        follows.
        """
        self._fillings += 1
        which = str(self._fillings)
        begin = f"(...held) => {{ window.sdtrain.forms.{self.form}.filling({which}); return ({js})(...held); }}"
        answered = listen(event, fn, inputs, outputs, js=begin)
        listen(answered.then, None, js=self._js("filled", which))
        return answered.then


def wish_answered(name: str, then: Any) -> None:
    """Have the next of the wishes called `name` in the page's script told after an event."""
    listen(then, None, js=f"() => {{ window.sdtrain.wishes.{name}.answered(); }}")


def answer_wishes(name: str, event: Any, fn: Callable[..., Any], inputs: Any, outputs: Any) -> None:
    """What answers the wishes called `name`; they come as JSON in the place of the first of the inputs."""
    wish_answered(name, listen(event, fn, inputs, outputs, js=WISHED).then)
