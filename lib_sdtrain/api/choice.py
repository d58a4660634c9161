"""What a person or a program chose for a run."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Choice:
    """A preset by name (empty: none) and raw values by dotted path on top of it."""

    preset: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
