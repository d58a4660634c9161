"""Merging checkpoints block by block: block tables, methods, recipes, and the streaming engine."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lib_sdtrain.entry import make_callable

if TYPE_CHECKING:
    from lib_sdtrain.events import CancelToken, Event
    from lib_sdtrain.model.hashes import HashCache
    from lib_sdtrain.settings.merge import MergeSettings


def merge(
    settings: MergeSettings, token: CancelToken, cache: HashCache | None = None, folders: Sequence[Path] = ()
) -> Iterator[Event]:
    """Merge checkpoints into `settings.out`, or make a merge again from `settings.recipe`.

    `cache` keeps hashes from run to run (by default the user's); `folders` are searched, after
    `settings.search`, for a recipe's models. Ends with `Finished`: out, sha256, seconds, blocks, report.

    Raises `UserError` with every mistake before anything is written, `Cancelled` when the user stops it;
    either way nothing is left behind.
    """
    from lib_sdtrain.merge.parents import ParentHashes, files_named
    from lib_sdtrain.model.hashes import user_cache

    with ParentHashes(cache or user_cache()) as hashes:
        hashes.start(files_named(settings))
        from lib_sdtrain.merge.engine import run

        yield from run(settings, token, hashes, folders)


make_callable(__name__, __name__, "merge")
