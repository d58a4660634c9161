"""Masks from files, transparency and boxes land where the picture lands, and weigh the loss."""
import json

import numpy as np
import pytest
import torch
from PIL import Image

from lib_sdtrain.data.concepts import Captions, Material, Picture, find_pictures
from lib_sdtrain.data.draws import Draws
from lib_sdtrain.data.masks import boxes_of, mask_for
from lib_sdtrain.errors import UserError
from lib_sdtrain.settings.run import Concept, DataSettings
from lib_sdtrain.settings.run_method import LossSettings
from lib_sdtrain.train.criterion import Criterion
from tests.data.folders import opened


def halves(size=(128, 64)):
    """The left half of a picture counts."""
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[:, : size[0] // 2] = 255
    return Image.fromarray(mask)


def mask_of(picture, flip=False, elsewhere=0.0, **data):
    settings = DataSettings(**{"resolution": "64", "flip_p": float(flip), **data})
    draw = Draws([Material(Concept(), (picture,))], settings, 0).at(0)
    return mask_for(draw, 8, elsewhere=elsewhere)[0]


@pytest.fixture
def masked(tmp_path):
    """A picture of 128x64 whose left half counts: by a file, or by its transparency."""

    def make(kind):
        path = tmp_path / "a.png"
        image = Image.new("RGB", (128, 64), "red")
        if kind == "alpha":
            image.putalpha(halves())
        image.save(path)
        if kind == "label":
            halves().save(tmp_path / "a-masklabel.png")
        if kind == "folder":
            (tmp_path / "masks").mkdir()
            halves((256, 128)).save(tmp_path / "masks" / "a.png")
        folder = tmp_path / "masks" if kind == "folder" else None
        captions = Captions(tmp_path, mask_dir=folder)
        _, found = opened(tmp_path, captions=captions)
        return next(picture for picture in found if picture.path == path)

    return make


@pytest.mark.parametrize("kind", ["alpha", "label", "folder"])
def test_masks_are_cropped_and_mirrored_as_pictures_are(masked, kind):
    picture = masked(kind)
    plain = mask_of(picture)                                   # the middle 64 of 128: left half of it counts
    assert plain.shape == (8, 8)
    assert plain[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert mask_of(picture, flip=True)[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert mask_of(picture, elsewhere=0.25)[3].tolist() == [1] * 4 + [0.25] * 4


def test_padding_does_not_count(masked):
    weights = mask_of(masked("none"), resize="pad")            # 64x32 in the middle of 64x64
    assert weights[:, 0].tolist() == [0, 0, 1, 1, 1, 1, 0, 0]


def test_label_files_are_no_pictures(masked, tmp_path):
    masked("label")
    assert [path.name for path in find_pictures(tmp_path)] == ["a.png"]


def test_boxes_do_not_count(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (64, 64)).save(path)
    for boxes in ([[0, 0, 32, 16]], [0, 0, 0.5, 0.25], json.dumps([[0, 0, 0.5, 0.25]])):
        weights = mask_of(Picture(path, "", (64, 64), None, {"boxes": boxes}))
        assert weights[:2, :4].sum() == 0
        assert weights.sum() == 64 - 8
    assert boxes_of(Picture(path, "", (64, 64), None, {}), "boxes") == []
    with pytest.raises(UserError, match="are no boxes"):
        boxes_of(Picture(path, "", (64, 64), None, {"boxes": "here"}), "boxes")


def test_a_mask_of_another_shape_is_refused(tmp_path):
    Image.new("L", (50, 90)).save(tmp_path / "m.png")
    picture = Picture(tmp_path / "a.png", "", (64, 64), None, mask=tmp_path / "m.png")
    with pytest.raises(UserError, match="the mask is 50x90, its picture 64x64"):
        mask_of(picture)


def test_the_loss_is_the_mean_of_masked_errors_over_the_whole_picture():
    prediction, target = torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    mask = torch.tensor([[[[1.0, 0.5], [0.0, 0.0]]]])
    criterion = Criterion(LossSettings(), "epsilon", torch.linspace(0.99, 0.01, 1000))
    steps = torch.tensor([10])
    assert float(criterion.per_sample(prediction, target, steps, mask)) == pytest.approx((1 + 0.5 * 4) / 4)
    assert float(criterion.per_sample(prediction, target, steps)) == pytest.approx((1 + 4 + 9 + 16) / 4)
