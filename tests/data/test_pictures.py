"""Any picture opened right, and brought to size like the guides' ImageMagick line."""
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lib_sdtrain.data.concepts import find_pictures, prompt_of, read_caption
from lib_sdtrain.data.pictures import BadPicture, apply_fit, cover, decode, pad, to_tensor
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import Notice
from tests.data.folders import opened


def encoded(image, form="PNG", **options):
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def quadrants():
    """4x2 picture: red, green on top, blue, white below."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:10, :20], pixels[:10, 20:], pixels[10:, :20] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    pixels[10:, 20:] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize(("orientation", "corner"), [
    (1, (255, 0, 0)), (2, (0, 255, 0)), (3, (255, 255, 255)), (4, (0, 0, 255)),
    (5, (255, 0, 0)), (6, (0, 0, 255)), (7, (255, 255, 255)), (8, (0, 255, 0)),
])
def test_exif_orientation_is_applied(orientation, corner):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(quadrants(), "PNG", exif=exif))
    assert image.size == ((40, 20) if orientation < 5 else (20, 40))
    assert image.getpixel((2, 2)) == corner


def test_transparency_lies_over_the_chosen_colour():
    half = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    half.putpixel((1, 0), (255, 0, 0, 255))
    assert list(decode(encoded(half), "#00ff00").getdata()) == [(0, 255, 0), (255, 0, 0)]
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([9, 9, 9])
    assert decode(encoded(palette, transparency=0), "white").getpixel((0, 0)) == (255, 255, 255)
    grey = Image.new("LA", (1, 1), (7, 0))
    assert decode(encoded(grey), "blue").getpixel((0, 0)) == (0, 0, 255)


@pytest.mark.parametrize(("image", "form", "expected"), [
    (Image.fromarray(np.array([[0, 32896, 65535]], np.uint16)), "PNG", [0, 128, 255]),
    (Image.fromarray(np.array([[0, 128, 255]], np.uint8)), "PNG", [0, 128, 255]),
    (Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)), "TIFF", [0, 128, 255]),
    (Image.fromarray(np.array([[False, True, True]])), "PNG", [0, 255, 255]),
])
def test_other_depths_keep_their_brightness(image, form, expected):
    grey = np.asarray(decode(encoded(image, form)))[0]
    assert grey.tolist() == [[value] * 3 for value in expected]


def test_cmyk_is_read_as_colours():
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    r, g, b = decode(encoded(red, "TIFF")).getpixel((4, 4))
    assert r > 200
    assert max(g, b) < 60


def png_bomb():
    """A PNG that claims 100,000 x 100,000 pixels."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(("content", "reason"), [
    (b"", "empty"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
    (encoded(Image.new("RGB", (64, 64), "red"), "JPEG")[:300], "damaged"),
    (encoded(Image.effect_noise((64, 64), 90))[:700], "damaged"),
    (png_bomb(), "too many pixels"),
    (encoded(Image.new("L", (4000, 1))), "too narrow"),
])
def test_what_cannot_be_used_says_why(content, reason):
    with pytest.raises(BadPicture, match=reason):
        decode(content)


@pytest.mark.parametrize(("size", "target", "resize", "crop"), [
    ((640, 480), (512, 512), (683, 512), (85, 0, 512, 512)),
    ((480, 640), (512, 512), (512, 683), (0, 85, 512, 512)),
    ((512, 512), (512, 512), (512, 512), (0, 0, 512, 512)),
    ((100, 100), (768, 512), (768, 768), (0, 128, 768, 512)),
])
def test_cover_fills_the_target_and_crops_the_middle(size, target, resize, crop):
    fit = cover(size, target)
    assert (fit.resize, fit.crop) == (resize, crop)


def test_pad_keeps_the_whole_picture_in_the_middle_of_the_ground():
    image = Image.new("RGB", (640, 320), "red")
    out = apply_fit(image, pad(image.size, (512, 512)), "white")
    assert out.size == (512, 512)
    assert out.getpixel((256, 127)) == (255, 255, 255)
    assert out.getpixel((256, 128)) == (255, 0, 0)
    assert out.getpixel((0, 383)) == (255, 0, 0)
    assert out.getpixel((0, 384)) == (255, 255, 255)


def test_pixels_become_numbers_from_minus_one_to_one():
    tensor = to_tensor(quadrants())
    assert tensor.shape == (3, 20, 40)
    assert tensor[:, 0, 0].tolist() == [1.0, -1.0, -1.0]
    assert tensor[:, 19, 39].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.fault("a notice with its name and reason")
def test_broken_pictures_are_named_and_left_out(tmp_path):
    quadrants().save(tmp_path / "good.png")
    (tmp_path / "cut.jpg").write_bytes(encoded(quadrants(), "JPEG")[:200])
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "sub").mkdir()
    quadrants().save(tmp_path / "sub" / "GOOD.JPG")
    (tmp_path / "notes.docx").write_bytes(b"x")
    told, pictures = opened(tmp_path)
    assert [picture.path.name for picture in pictures] == ["good.png", "GOOD.JPG"]
    notices = [event for event in told if isinstance(event, Notice)]
    assert len(notices) == 1
    assert notices[0].where.endswith("cut.jpg")
    assert [path.name for path in find_pictures(tmp_path)] == ["cut.jpg", "good.png", "GOOD.JPG"]


def test_captions_lose_control_characters_but_no_words(tmp_path):
    picture = tmp_path / "a.png"
    assert read_caption(picture) is None
    (tmp_path / "a.txt").write_bytes("\ufeffa dog,\r\n\tin \x00 the   rain ☂\n".encode())
    assert read_caption(picture) == "a dog, in the rain ☂"
    (tmp_path / "a.txt").write_bytes("über".encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        read_caption(picture)
    (tmp_path / "a.txt").write_bytes(b"x" * 100_000)
    with pytest.raises(UserError, match="too long"):
        read_caption(picture)


@pytest.mark.parametrize(("caption", "prompt", "expected"), [
    (None, "a photo of sks dog", "a photo of sks dog"),
    ("on grass", "a photo of sks dog", "on grass"),
    ("on grass", "sks dog, [filewords]", "sks dog, on grass"),
    (None, "sks dog, [filewords]", "sks dog,"),
])
def test_captions_and_prompts_combine_as_documented(caption, prompt, expected):
    assert prompt_of(caption, prompt) == expected
