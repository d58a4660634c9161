"""What a person sees of a job: named phases, rates with units, time left; one live line only on a terminal."""
import io

import pytest

from lib_sdtrain.cli import terminal
from lib_sdtrain.cli.terminal import Terminal, bar, duration, rate
from lib_sdtrain.events import Notice, Phase, Saved, Step


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (3725, "1 h 02 min"), (-3, "0 s")])
def test_durations_in_words(seconds, text):
    assert duration(seconds) == text


def test_rates_turn_round_when_slow():
    assert rate(2.13, "steps") == "2.1 steps/s"
    assert rate(0.25, "pictures") == "4.0 s/picture"


def test_the_bar_has_one_width():
    assert {len(bar(done, 7)) for done in range(8)} == {terminal.BAR}
    assert bar(7, 7) == "#" * terminal.BAR


class Clock:
    """Seconds that pass when told to."""

    now = 100.0

    def __call__(self):
        return self.now


def shown(events, monkeypatch, stream):
    clock = Clock()
    monkeypatch.setattr(terminal.time, "monotonic", clock)
    screen = Terminal(stream)
    for event in events:
        screen.show(event)
        clock.now += 2.0
    return stream.getvalue()


def test_plain_lines_where_there_is_no_terminal(monkeypatch):
    events = [Phase(name="encoding pictures", done=n, total=8, unit="pictures") for n in range(1, 9)]
    lines = shown(events, monkeypatch, io.StringIO()).splitlines()
    assert lines[0] == "encoding pictures 1/8 pictures"
    assert lines[1] == "encoding pictures 4/8 pictures  2.0 s/picture  8 s left"
    assert lines[-1] == "encoding pictures 8/8 pictures  2.0 s/picture"
    assert len(lines) < len(events)


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def test_a_terminal_has_one_live_line_that_notes_do_not_break(monkeypatch):
    events = [Step(step=1, total=3, smoothed=0.5), Notice(text="left out: damaged", where="a.png"),
              Step(step=2, total=3, smoothed=0.4), Step(step=3, total=3, smoothed=0.3),
              Saved(file="x.safetensors", sha256="ab" * 32)]
    text = shown(events, monkeypatch, Screen())
    assert "\r\x1b[Knote: a.png: left out: damaged\n" in text
    assert "training 3/3 steps" in text
    assert text.endswith("saved x.safetensors  [ababababab]\n")


def test_a_phase_without_a_unit_is_only_named(monkeypatch):
    assert shown([Phase(name="loading model", done=1, total=1)], monkeypatch, io.StringIO()) == "loading model\n"


def test_bytes_are_told_in_the_units_of_files(monkeypatch):
    events = [Phase(name="merging", done=n * 400_000_000, total=2_000_000_000, unit="bytes") for n in (1, 3, 5)]
    lines = shown(events, monkeypatch, io.StringIO()).splitlines()
    assert lines[0] == "merging 0.4/2.0 GB"
    assert lines[-1] == "merging 2.0/2.0 GB  400 MB/s"
    assert terminal.amount(3_000_000, 38_000_000, "bytes") == "3.0/38.0 MB"
