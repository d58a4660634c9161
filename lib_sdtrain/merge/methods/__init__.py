"""The merge methods: pure functions of tensors, one table of them all.

To add a method, write its function and its `Method` entry in a module of this package (every module's
`METHODS` is found by itself) and its name in `settings/merge.py`.
"""
from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from lib_sdtrain.merge.methods.base import Method

__all__ = ["Method", "all_methods"]


@cache
def all_methods() -> dict[str, Method]:
    """Every method by name."""
    found: dict[str, Method] = {}
    for module in pkgutil.iter_modules(__path__):
        methods = getattr(importlib.import_module(f"{__name__}.{module.name}"), "METHODS", ())
        found.update({method.name: method for method in methods})
    return found
