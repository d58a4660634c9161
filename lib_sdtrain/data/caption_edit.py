"""Caption files searched, replaced and counted; what will change is shown before it does."""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib_sdtrain.data.captions import join_tags, replace_words, split_tags
from lib_sdtrain.data.concepts import CAPTION_SUFFIXES, find_pictures
from lib_sdtrain.data.journal import Journal
from lib_sdtrain.errors import UserError


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
            except (re.error, IndexError) as error:
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
    for picture in find_pictures(folder):
        file = next((path for suffix in CAPTION_SUFFIXES if (path := picture.with_suffix(suffix)).is_file()), None)
        try:
            yield picture, file, file.read_bytes().decode("utf-8-sig") if file else ""
        except UnicodeDecodeError as error:
            raise UserError("the caption is not UTF-8 text", where=str(file), fix="save it as UTF-8") from error


def changes(folder: Path, edit: Edit) -> list[Change]:
    """The caption files that an edit changes; pictures without a caption stay so."""
    found = []
    for _, file, text in captions_below(folder):
        after = edit(text.strip())
        if file is not None and after != text.strip():
            found.append(Change(file, text, after + "\n"))
    return found


def apply_changes(folder: Path, found: Sequence[Change]) -> None:
    """Write the changed captions; `journal.undo` takes it back."""
    journal = Journal(folder)
    for change in found:
        journal.write(change.path, change.after.encode("utf-8"))
    journal.close()


def statistics(folder: Path, separator: str = ",") -> dict[str, object]:
    """`pictures`, `captions`, `empty` and `tags`: how many pictures have each tag, the most frequent first."""
    tags, pictures, captions, empty = Counter(), 0, 0, 0
    for _, file, text in captions_below(folder):
        pictures, captions = pictures + 1, captions + (file is not None)
        empty += file is not None and not text.strip()
        tags.update(set(split_tags(text, separator)))
    ordered = dict(sorted(tags.items(), key=lambda item: (-item[1], item[0])))
    return {"pictures": pictures, "captions": captions, "empty": empty, "tags": ordered}
