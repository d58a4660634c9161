"""CLIP's byte-pair tokenizer (Radford et al. 2021), with the two treatments of text that the host has.

The vocabulary is the file that open-clip-torch carries; the package is found but not imported, because importing
it would import torchvision. SD1's encoder and SDXL's first read text as transformers' CLIPTokenizer does, SD2's
and SDXL's second as open_clip does: they differ in how special tokens and HTML entities are read.
"""
from __future__ import annotations

import gzip
import html
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import ftfy
import regex

from lib_sdtrain.errors import UserError

BOS_ID = 49406
EOS_ID = 49407
VOCABULARY_NAME = "bpe_simple_vocab_16e6.txt.gz"
MERGE_COUNT = 49152 - 256 - 2

_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_CACHED_WORDS = 65536


@dataclass(frozen=True)
class Vocabulary:
    """The merges and the ids they give: 256 bytes, 256 bytes that end a word, the merges, start, end."""

    ranks: dict[tuple[str, str], int]
    ids: dict[str, int]


def vocabulary_path() -> Path:
    """Where the vocabulary stands. Raises `UserError` when no installed package carries it."""
    for package in ("open_clip", "clip"):
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            path = Path(folder) / VOCABULARY_NAME
            if path.is_file():
                return path
    raise UserError(
        f"CLIP's vocabulary ({VOCABULARY_NAME}) was not found", where="tokenizer",
        fix="install it with: pip install --no-deps open-clip-torch==2.20.0",
    )


@lru_cache(maxsize=4)
def read_vocabulary(path: Path) -> Vocabulary:
    """Parse the gzipped list of merges (first line a version, one merge a line)."""
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1 : MERGE_COUNT + 1]
    merges = [(left, right) for left, right in (line.split() for line in lines)]
    alphabet = list(byte_symbols().values())
    pieces = alphabet + [symbol + "</w>" for symbol in alphabet] + [left + right for left, right in merges]
    return Vocabulary(
        ranks={pair: rank for rank, pair in enumerate(merges)},
        ids={piece: number for number, piece in enumerate(pieces)},
    )


@lru_cache(maxsize=1)
def byte_symbols() -> dict[int, str]:
    """A printable character for every byte, in the order of the vocabulary: printable Latin-1 bytes stand for
    themselves, the other 68 are moved to U+0100 and up (GPT-2's byte-level BPE)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


class Tokenizer:
    """Text to token ids, without the start and end tokens around it.

    `style` is `transformers` or `open_clip`; `pad_id` fills what is left after the end token.
    """

    bos_id = BOS_ID
    eos_id = EOS_ID

    def __init__(self, style: str = "transformers", pad_id: int | None = None, path: Path | None = None) -> None:
        self.style = style
        self.vocabulary = read_vocabulary(path or vocabulary_path())
        names = ("<start_of_text>", "<end_of_text>") if style == "open_clip" else ("<|startoftext|>", "<|endoftext|>")
        self.specials = dict(zip(names, (BOS_ID, EOS_ID), strict=True))
        self.pad_id = pad_id if pad_id is not None else 0 if style == "open_clip" else EOS_ID
        special = "|".join(regex.escape(name) for name in names)
        self._special = regex.compile(f"({special})")
        self._pattern = regex.compile(f"{special}|{_WORDS}", regex.IGNORECASE)
        self._pieces = lru_cache(maxsize=_CACHED_WORDS)(self._split_word)

    @property
    def comma_id(self) -> int:
        """The id of a comma that ends a word."""
        return self.vocabulary.ids[",</w>"]

    def encode(self, text: str) -> list[int]:
        """Token ids of the text, any number of them."""
        return [number for _, number in self.split(text)]

    def split(self, text: str) -> list[tuple[str, int]]:
        """The tokens as (piece, id); a piece that ends a word ends in `</w>`."""
        found: list[tuple[str, int]] = []
        for part in self._parts(text):
            if part in self.specials:
                found.append((part, self.specials[part]))
            else:
                for word in self._pattern.findall(self._clean(part)):
                    found.extend(self._pieces(word))
        return found

    def frame(self, ids: list[int], length: int = 77) -> list[int]:
        """Start token, ids, end token, padding up to `length`. Raises `ValueError` if there are too many."""
        if len(ids) > length - 2:
            raise ValueError(f"{len(ids)} tokens do not fit into {length - 2}")
        framed = [self.bos_id, *ids, self.eos_id]
        return framed + [self.pad_id] * (length - len(framed))

    def _parts(self, text: str) -> list[str]:
        """transformers cuts at special tokens before it cleans; open_clip cleans the text as a whole."""
        return [text] if self.style == "open_clip" else [part for part in self._special.split(text) if part]

    def _clean(self, text: str) -> str:
        text = ftfy.fix_text(text)
        if self.style == "open_clip":
            text = html.unescape(html.unescape(text))
        return regex.sub(r"\s+", " ", text).strip().lower()

    def _split_word(self, word: str) -> tuple[tuple[str, int], ...]:
        if word in self.specials:
            return ((word, self.specials[word]),)
        symbols = [byte_symbols()[byte] for byte in word.encode("utf-8")]
        symbols[-1] += "</w>"
        return tuple((piece, self.vocabulary.ids[piece]) for piece in merge_pairs(symbols, self.vocabulary.ranks))


def merge_pairs(symbols: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding: join the neighbours whose merge was learnt first, until none was (Sennrich et al. 2016)."""
    while len(symbols) > 1:
        best = min(pairwise(symbols), key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        symbols = _join_pair(symbols, best)
    return symbols


def _join_pair(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    joined: list[str] = []
    position = 0
    while position < len(symbols):
        if tuple(symbols[position : position + 2]) == pair:
            joined.append(pair[0] + pair[1])
            position += 2
        else:
            joined.append(symbols[position])
            position += 1
    return joined
