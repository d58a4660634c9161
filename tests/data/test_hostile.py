"""Pictures, captions and lists that are made to hurt: refused in words, in little memory, and nothing is run."""
from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import PurePosixPath

import pytest
from PIL import EpsImagePlugin, Image

from lib_sdtrain.data.concepts import Captions, read_caption
from lib_sdtrain.data.everydream_files import read_side_files
from lib_sdtrain.data.groups import read_picture_weights
from lib_sdtrain.data.masks import _read_mask
from lib_sdtrain.data.metadata import MetadataFile
from lib_sdtrain.data.pictures import MAX_BYTES, BadPicture, decode, open_picture
from lib_sdtrain.errors import UserError

DEEP = "[" * 100_000
SCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n(x) run\n%%EOF\n"


def png(width: int, height: int, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG that claims a size and carries chunks."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), *extra, (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


BOMB = zlib.compress(b"\0" * 100_000_000, 9)
PICTURES = {
    "100,000 x 1": (png(100_000, 1), "too narrow"),
    "1 x 100,000": (png(1, 100_000), "too narrow"),
    "gigapixels": (png(60_000, 60_000), "far too many pixels"),
    "no pixels": (png(0, 0), "damaged|not a picture"),
    "a packed text of 100 MB": (png(64, 64, (b"zTXt", b"parameters\0\0" + BOMB)), "damaged"),
    "a packed profile of 100 MB": (png(64, 64, (b"iCCP", b"x\0\0" + BOMB)), "damaged"),
    "PostScript": (SCRIPT, "not a picture"),
    "a web page": (b"<html><script>alert(1)</script>", "not a picture"),
    "SVG with a program": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>x</script></svg>", "not a picture"),
    "a PDF": (b"%PDF-1.4\n", "not a picture"),
    "zeros": (bytes(1000), "not a picture"),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.fault("a notice with the picture's name and what is wrong with it; nothing in it is run or unpacked")
def test_a_picture_made_to_hurt_is_refused(name, monkeypatch):
    def started(*_given, **_options):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    content, said = PICTURES[name]
    with pytest.raises(BadPicture, match=said):
        decode(content)


def test_a_file_of_gigabytes_is_not_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(BadPicture, match="far too many for a picture"):
        open_picture(tmp_path / "a.png")


@pytest.mark.parametrize("content", [SCRIPT, png(60_000, 60_000), b"", b"<svg/>", png(0, 0)])
def test_a_mask_made_to_hurt_is_a_mistake_that_names_it(tmp_path, content):
    (tmp_path / "mask.png").write_bytes(content)
    with pytest.raises(UserError, match=r"mask\.png: the mask cannot be read"):
        _read_mask(tmp_path / "mask.png", (64, 64))


def test_formats_of_every_suffix_are_still_read():
    for name in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"):
        file = io.BytesIO()
        Image.new("RGB", (64, 64), "red").save(file, name)
        assert decode(file.getvalue()).size == (64, 64)


def test_a_caption_of_megabytes_is_refused_wherever_it_stands(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "meta.json").write_text(json.dumps({"a.png": {"caption": "x " * 5_000_000}}))
    metadata = MetadataFile(str(tmp_path / "meta.json"), "data")
    with pytest.raises(UserError, match=r"meta\.json: a\.png: the caption is far too long"):
        Captions(tmp_path, metadata)
    (tmp_path / "a.txt").write_bytes(b"x" * 10_000_000)
    with pytest.raises(UserError, match=r"a\.txt: the caption is far too long"):
        read_caption(tmp_path / "a.png")


@pytest.mark.parametrize("content", [DEEP, '{"a":' * 100_000, "{", "", "null", "[1]", '{"a": ' + "9" * 10_000 + "}"])
@pytest.mark.parametrize("kind", ["meta.json", "meta.jsonl", "weights"])
def test_lists_made_to_hurt_are_mistakes(tmp_path, content, kind):
    path = tmp_path / kind
    path.write_text(content)
    with pytest.raises(UserError, match=kind.partition(".")[0]):
        read_picture_weights(str(path), "data") if kind == "weights" else MetadataFile(str(path), "data")


def test_a_side_file_without_end_is_read_to_a_bound(tmp_path):
    with (tmp_path / "multiply.txt").open("wb") as file:
        file.truncate(2**33)
    with pytest.raises(UserError, match="not a number"):
        read_side_files(tmp_path, PurePosixPath())
