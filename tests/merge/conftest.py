"""Fixtures of the merge tests."""
import pytest

from tests.merge.models import state, write


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    return {letter: write(folder / f"{letter}.safetensors", state(seed=n)) for n, letter in enumerate("abc", start=1)}
