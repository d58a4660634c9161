"""Checkpoints by the words of a page that may be older than what the host now says."""
from pathlib import Path

import pytest

from lib_sdtrain.host.protocol import CheckpointEntry, entry_called

ONE = CheckpointEntry("/m/one.safetensors", "one.safetensors [0123456789]  (loaded)", Path("/m/one.safetensors"), True)
TWO = CheckpointEntry("/m/two.safetensors", "two.safetensors", Path("/m/two.safetensors"))
OTHER = CheckpointEntry("/m/sub/two.safetensors", "sub/two.safetensors", Path("/m/sub/two.safetensors"))
LISTED = [ONE, TWO, OTHER]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/m/one.safetensors", ONE), (ONE.title, ONE), ("one.safetensors", ONE), ("one.safetensors [0123456789]", ONE),
        ("two.safetensors [abcdefabcd]  (loaded)", TWO), ("two.safetensors  (loaded)", TWO),
        ("sub/two.safetensors [abcdefabcd]", OTHER), ("three.safetensors", None), ("", None),
    ],
)  # fmt: skip
def test_a_title_is_known_before_and_after_it_was_hashed_and_loaded(text, found):
    assert entry_called(LISTED, text) is found


def test_of_two_that_differ_in_their_hash_only_none_is_guessed():
    titles = {"/a": "one [0123456789]", "/b": "one [9876543210]"}
    twins = [CheckpointEntry(name, title, Path(name)) for name, title in titles.items()]
    assert entry_called(twins, "one") is None
    assert entry_called(twins, "one [9876543210]") is twins[1]
