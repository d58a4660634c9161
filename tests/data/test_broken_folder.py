"""A folder with all kinds of broken input is read: each has one clear line, and the good pictures are there."""
from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from lib_sdtrain.events import Notice
from tests.data.folders import opened

NO_PICTURE, DAMAGED, MANY, NARROW = "not a picture that can be read", "damaged: ", "far too many pixels", "too narrow"


def encoded(kind: str, mode: str = "RGB") -> bytes:
    """A good picture of a kind, with something in it."""
    image = Image.linear_gradient("L").resize((96, 80)).convert(mode)
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


def claiming(width: int, height: int, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG that claims a size and carries chunks."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), *extra, (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def changed(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]


PNG = encoded("PNG")
BROKEN: dict[str, tuple[bytes, str]] = {
    "nothing in it.png": (b"", "the file is empty"),
    "zeros.png": (bytes(1000), NO_PICTURE),
    "a text.png": (b"a photo of a dog", NO_PICTURE),
    "a web page.jpg": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", NO_PICTURE),
    "an answer of a server.jpg": (b'{"error": "rate limited"}', NO_PICTURE),
    "a pointer of git lfs.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", NO_PICTURE),
    "a drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", NO_PICTURE),
    "a page.jpg": (b"%PDF-1.4\n%%EOF", NO_PICTURE),
    "a printer's program.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", NO_PICTURE),
    "an archive.webp": (b"PK\x03\x04" + bytes(60), NO_PICTURE),
    "a film.jpg": (b"\0\0\0\x18ftypmp42" + bytes(100), NO_PICTURE),
    "a phone's heic.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), NO_PICTURE),
    "layers.png": (b"8BPS\0\x01" + bytes(100), NO_PICTURE),
    "an icon.png": (encoded("ICO"), NO_PICTURE),
    "a sound.gif": (b"RIFF\x24\0\0\0WAVEfmt ", NO_PICTURE),
    "only a beginning.jpg": (encoded("JPEG")[:20], NO_PICTURE),
    "cut off.jpg": (encoded("JPEG")[:600], DAMAGED),
    "cut off.png": (PNG[:90], DAMAGED),
    "cut off.webp": (encoded("WEBP")[:60], DAMAGED + "|" + NO_PICTURE),
    "cut off.gif": (encoded("GIF", "L")[:700], DAMAGED),
    "cut off.bmp": (encoded("BMP")[:400], DAMAGED),
    "cut off.tif": (encoded("TIFF")[:400], DAMAGED + "|" + NO_PICTURE),
    "a changed byte.png": (changed(PNG, 60), DAMAGED),
    "a changed head.png": (changed(PNG, 20), DAMAGED + "|" + NO_PICTURE + "|" + NARROW + "|" + MANY),
    "gigapixels.png": (claiming(60_000, 60_000), MANY),
    "a line.png": (claiming(100_000, 1), NARROW),
    "no pixels.png": (claiming(0, 0), DAMAGED + "|" + NO_PICTURE),
    "a packed text.png": (claiming(64, 64, (b"zTXt", b"x\0\0" + zlib.compress(bytes(10**8), 9))), DAMAGED),
}
BAD_CAPTIONS = {
    "latin.txt": ("über".encode("latin-1"), "the caption is not UTF-8 text"),
    "of another system.txt": ("a dog".encode("utf-16"), "the caption is not UTF-8 text"),
    "a book.txt": (b"word " * 100_000, "the caption is far too long"),
    "a program.caption": (b"\x7fELF\x02\x01\x01\0\xff\xfe", "the caption is not UTF-8 text"),
}
LINKS = {
    "nowhere.png": ("missing.png", "cannot be read: No such file"),
    "a circle.png": ("a circle.png", "cannot be read: Too many levels"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "good.png").write_bytes(PNG)
    (tmp_path / "good.txt").write_text("a gradient")
    for name, (content, _) in BROKEN.items():
        (tmp_path / name).write_bytes(content)
    for name, (content, _) in BAD_CAPTIONS.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).with_suffix(".png").write_bytes(PNG)
    if hasattr(os, "mkfifo"):
        for name, (target, _) in LINKS.items():
            (tmp_path / name).symlink_to(target)
        os.mkfifo(tmp_path / "a pipe.png")
    return tmp_path


def wanted() -> dict[str, str]:
    """A pattern of the line for each file."""
    special = {**{name: text for name, (_, text) in LINKS.items()}, "a pipe.png": "not a file"}
    return {
        **{name: text for name, (_, text) in {**BROKEN, **BAD_CAPTIONS}.items()},
        **(special if hasattr(os, "mkfifo") else {}),
    }


@pytest.mark.fault("one line each with the file's name and what is wrong with it; the others are trained on")
def test_every_kind_of_broken_input_has_one_clear_line(folder):
    told, pictures = opened(folder)
    assert [picture.path.name for picture in pictures] == ["good.png"]
    lines = {}
    for event in told:
        if isinstance(event, Notice):
            name = Path(event.where).name
            assert name not in lines, f"{name} is told twice"
            lines[name] = event.text
    assert len(wanted()) >= 30
    assert set(lines) == set(wanted())
    for name, pattern in wanted().items():
        said = lines[name].removeprefix("left out: ")
        assert any(said.startswith(part) or part in said for part in pattern.split("|")), f"{name}: {said}"
        assert "\n" not in said
        assert len(said) < 150, f"{name}: {said}"
