"""Errors that speak to the user: what is wrong, where, and what to do.

Standard library only. The command line turns `UserError` into exit code 2 with one line per mistake,
the tab puts each problem beside its control.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """One mistake: `what` happened, `where` (a setting, a file, a line) and the `fix` to try."""

    what: str
    where: str = ""
    fix: str = ""

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}; {self.fix}" if self.fix else head


class UserError(Exception):
    """The input is wrong. Nothing has been written when this is raised (exit code 2)."""

    def __init__(self, what: str | list[Problem], where: str = "", fix: str = "") -> None:
        self.problems = what if isinstance(what, list) else [Problem(what, where, fix)]
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Cancelled(Exception):  # noqa: N818 - a request of the user, not an error
    """The user asked to stop now; raised by `CancelToken.check`. Nothing half-written remains."""


class Problems:
    """Collects mistakes so that all of them are reported at once, before any heavy work."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, what: str, where: str = "", fix: str = "") -> None:
        """Note one mistake."""
        self.found.append(Problem(what, where, fix))

    def absorb(self, error: UserError, where: Callable[[str], str] = str) -> None:
        """Take over the mistakes of a `UserError` that a callee raised; `where` names its places anew."""
        self.found.extend(replace(problem, where=where(problem.where)) for problem in error.problems)

    def tried(self, call: Callable[..., T], *args: Any) -> T | None:
        """What `call` returns; None where it raises a `UserError`, whose mistakes are noted."""
        try:
            return call(*args)
        except UserError as error:
            self.absorb(error)
            return None

    def raise_if_any(self) -> None:
        """Raise one `UserError` with everything noted so far."""
        if self.found:
            raise UserError(list(self.found))


class JobFailed(Exception):  # noqa: N818 - reads as what it is
    """Work that began well could not go on (exit code 1): what happened, where, what to do. Saved files are good."""

    def __init__(self, what: str, where: str = "", fix: str = "") -> None:
        self.problem = Problem(what, where, fix)
        super().__init__(str(self.problem))
