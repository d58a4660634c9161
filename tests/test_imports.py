"""Imports without looking for garbage, which is looked for again afterwards."""
from __future__ import annotations

import gc

import pytest

from lib_sdtrain.imports import quick_imports


def test_garbage_is_looked_for_again_afterwards():
    assert gc.isenabled()
    with quick_imports():
        assert not gc.isenabled()
        with quick_imports():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_after_an_import_that_fails_too():
    with pytest.raises(ImportError), quick_imports():
        import lib_sdtrain.nowhere  # noqa: F401
    assert gc.isenabled()


def test_who_does_without_goes_on_so():
    gc.disable()
    try:
        with quick_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
