"""The choice of the last start, so that a page that is opened again shows it."""
from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from lib_sdtrain import textfiles
from lib_sdtrain.api.choice import Choice
from lib_sdtrain.durable import write_atomically
from lib_sdtrain.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LastChoice:
    """Kept in one file: the preset's name and what was changed, so that new defaults still arrive."""

    file: Path

    def write(self, choice: Choice) -> None:
        """Remember a choice, atomically. A folder that cannot be written is only logged: the run has begun."""
        text = textfiles.write_yaml({"preset": choice.preset, "settings": dict(choice.changes)})
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.file, text.encode())
        except OSError as error:
            logger.warning("the settings of this start cannot be remembered: %s", error)

    def read(self) -> Choice | None:
        """The last choice; None when there is none. Raises `UserError` for a file that is damaged."""
        if not self.file.is_file():
            return None
        found = textfiles.read_mapping(self.file)
        settings = found.get("settings") or {}
        if not isinstance(settings, dict):
            raise UserError("its settings are no mapping of names to values", where=str(self.file))
        return Choice(str(found.get("preset") or ""), settings)
