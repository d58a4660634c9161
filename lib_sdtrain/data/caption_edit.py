"""Caption files searched, replaced and counted; what will change is shown before it does."""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_sdtrain.data.captions import join_tags, replace_words, split_tags
from lib_sdtrain.data.concepts import CAPTION_SUFFIXES, find_pictures
from lib_sdtrain.data.journal import Journal
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, Event, Phase

AT_ONCE = 100


@dataclass(frozen=True)
class Edit:
    """What to do to each caption, in this order: replace, remove tags, add tags before and after the others.

    `word` replaces whole words only, `regex` takes `find` as a regular expression.
    """

    find: str = ""
    replace: str = ""
    word: bool = False
    regex: bool = False
    remove: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    separator: str = ","

    def __call__(self, caption: str) -> str:
        """The caption after it. Raises `UserError` for a regular expression that is none."""
        text = self._replaced(caption)
        if self.remove or self.first or self.last:
            tags = split_tags(text, self.separator)
            new = {*self.first, *self.last}
            kept = [tag for tag in tags if tag not in self.remove and tag not in new]
            text = join_tags([*self.first, *kept, *self.last], self.separator)
        return text

    def _replaced(self, text: str) -> str:
        if not self.find:
            return text
        if self.regex:
            try:
                return re.sub(self.find, self.replace, text)
            except (re.error, IndexError, OverflowError, RecursionError) as error:
                raise UserError(f"not a regular expression: {error}", where="--find") from error
        return replace_words(text, {self.find: self.replace}) if self.word else text.replace(self.find, self.replace)


@dataclass(frozen=True)
class Change:
    """A caption file before and after."""

    path: Path
    before: str
    after: str


def captions_below(folder: Path) -> Iterator[tuple[Path, Path | None, str]]:
    """(picture, its caption file or None, caption). Raises `UserError` for one that is not UTF-8."""
    return _captions_of(find_pictures(folder))


def _captions_of(pictures: Iterable[Path]) -> Iterator[tuple[Path, Path | None, str]]:
    for picture in pictures:
        file = next((path for suffix in CAPTION_SUFFIXES if (path := picture.with_suffix(suffix)).is_file()), None)
        try:
            yield picture, file, file.read_bytes().decode("utf-8-sig") if file else ""
        except UnicodeDecodeError as error:
            raise UserError("the caption is not UTF-8 text", where=str(file), fix="save it as UTF-8") from error


def _reading(folder: Path, token: CancelToken) -> Generator[Event, None, list[tuple[Path | None, str]]]:
    """(caption file or None, caption) of every picture."""
    pictures, found = find_pictures(folder), []
    for number, (_, file, text) in enumerate(_captions_of(pictures), 1):
        found.append((file, text))
        if number % AT_ONCE == 0 or number == len(pictures):
            token.check()
            yield Phase(name="reading captions", done=number, total=len(pictures), unit="captions")
    return found


def changes(folder: Path, edit: Edit, token: CancelToken) -> Generator[Event, None, list[Change]]:
    """The caption files that an edit changes; pictures without a caption stay so. Yields progress."""
    found = []
    for file, text in (yield from _reading(folder, token)):
        after = edit(text.strip())
        if file is not None and after != text.strip():
            found.append(Change(file, text, after + "\n"))
    return found


def apply_changes(folder: Path, found: Sequence[Change], token: CancelToken) -> Iterator[Event]:
    """Write the changed captions; `journal.undo` takes it back, also when this is stopped midway."""
    journal = Journal(folder)
    try:
        for number, change in enumerate(found, 1):
            journal.write(change.path, change.after.encode("utf-8"))
            if number % AT_ONCE == 0 or number == len(found):
                token.check()
                yield Phase(name="writing captions", done=number, total=len(found), unit="captions")
    finally:
        journal.close()


def statistics(folder: Path, token: CancelToken, separator: str = ",") -> Generator[Event, None, dict[str, Any]]:
    """`pictures`, `captions`, `empty` and `tags`: how many pictures have each tag, the most frequent first."""
    tags, pictures, captions, empty = Counter(), 0, 0, 0
    for file, text in (yield from _reading(folder, token)):
        pictures, captions = pictures + 1, captions + (file is not None)
        empty += file is not None and not text.strip()
        tags.update(set(split_tags(text, separator)))
    ordered = dict(sorted(tags.items(), key=lambda item: (-item[1], item[0])))
    return {"pictures": pictures, "captions": captions, "empty": empty, "tags": ordered}
