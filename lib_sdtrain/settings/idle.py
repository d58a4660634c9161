"""Which of a run's settings do not matter as the others stand."""
from __future__ import annotations

from typing import Any

from lib_sdtrain.settings.applies import applies
from lib_sdtrain.settings.fields import declared, get_path


def idle_paths(settings: Any) -> set[str]:
    """The dotted paths of settings whose conditions do not hold; none where a further stage may turn something on."""
    if getattr(settings, "stages", ()):
        return set()
    return {item.path for item in declared(type(settings))
            if not applies(item.meta.applies, lambda path: get_path(settings, path))}  # fmt: skip
