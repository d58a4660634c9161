"""Lets `from lib_sdtrain import train` be both the package of that name and the function that does it.

A package and a function cannot share a name otherwise: importing `lib_sdtrain.train.loop` would hide the function.
"""
from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


def make_callable(package: str, home: str, function: str) -> None:
    """Calling the package `package` calls `home.function`, which is imported then and not before."""

    class Entry(ModuleType):
        def __call__(self, *args: Any, **options: Any) -> Any:
            return getattr(import_module(home), function)(*args, **options)

    sys.modules[package].__class__ = Entry
