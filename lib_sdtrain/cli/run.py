"""Running a command: signals become wishes of the user, exceptions become lines and exit codes.

Exit codes: 0 done; 2 the input is wrong, nothing was written; 3 stopped by the user after saving; 1 anything else.
"""
from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from lib_sdtrain.cli.terminal import Terminal
from lib_sdtrain.errors import Cancelled, JobFailed, UserError
from lib_sdtrain.events import CancelToken, Event, Finished, Stopped

DONE, FAILED, WRONG_INPUT, STOPPED = 0, 1, 2, 3


@contextmanager
def signals(token: CancelToken, terminal: Terminal) -> Iterator[None]:
    """The first SIGINT or SIGTERM means stop and save, the second stop now."""

    def handle(number: int, frame: Any) -> None:
        del number, frame
        if token.stopping:
            token.stop_now()
            terminal.line("stopping now")
        else:
            token.stop_and_save()
            terminal.line("stopping after this step and saving; once more stops at once")

    previous = {name: signal.signal(name, handle) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)


def drive(
    start: Callable[[CancelToken], Iterable[Event]], as_json: bool, summary: Callable[[dict[str, Any]], str]
) -> int:
    """Run a job to its end, showing events; prints its document (or a summary) on stdout. The exit code."""
    terminal, token = Terminal(), CancelToken()
    with signals(token, terminal):
        last: Event | None = None
        for event in start(token):
            terminal.show(event)
            last = event
    if isinstance(last, Finished):
        show_document(last.result, as_json, summary)
        return DONE
    if isinstance(last, Stopped):
        if last.result and as_json:
            show_document(last.result, as_json, summary)
        terminal.line(f"stopped at step {last.step}" + (", saved" if last.saved else ", not saved"))
        return STOPPED if last.saved else FAILED
    return FAILED


def show_document(document: Any, as_json: bool, summary: Callable[[Any], str]) -> None:
    """The command's result on stdout."""
    sys.stdout.write((json.dumps(document, ensure_ascii=False) if as_json else summary(document)) + "\n")
    sys.stdout.flush()


def guarded(command: Callable[[], int]) -> int:
    """Call a command; what it raises becomes lines on stderr, each beginning `error:`, and an exit code."""
    try:
        return command()
    except UserError as error:
        _print_errors([str(problem) for problem in error.problems])
        return WRONG_INPUT
    except JobFailed as error:
        _print_errors([str(error.problem)])
        return FAILED
    except Cancelled:
        sys.stderr.write("stopped\n")
        return STOPPED
    except BrokenPipeError:
        return FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _print_errors([f"{where}{error.strerror or error}"])
        return FAILED


def _print_errors(lines: list[str]) -> None:
    for line in lines:
        sys.stderr.write("error: " + " ".join(line.split()) + "\n")
