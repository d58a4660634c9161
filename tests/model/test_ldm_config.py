"""The side-by-side descriptions: read as the WebUI reads them, checked against the weights, written back."""
from dataclasses import replace

import pytest
import yaml

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.detection import detect
from lib_sdtrain.model.family import EPSILON, PUBLISHED, SD1, SD2, SDXL, V_PREDICTION
from lib_sdtrain.model.ldm_config import apply_config
from lib_sdtrain.model.ldm_yaml import describe
from tests.model.layouts import DATA, file_shapes, small_family


def described(name):
    return yaml.safe_load((DATA / f"{name}.yaml").read_text())


def applied(tmp_path, family, data):
    path = tmp_path / "model.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return apply_config(family, path)


def forget(family):
    """What the shapes alone tell."""
    return replace(family, unet=replace(family.unet, heads=None), resolution=PUBLISHED[family.name].resolution)


def test_a_description_of_ldm_tells_heads_and_scale(tmp_path):
    family = detect(file_shapes("tiny-sd1"))
    assert family.unet.heads is None
    found = applied(tmp_path, family, described("tiny-sd1"))
    assert found.unet.heads == (8, 8, 8, 8)
    assert (found.scale_factor, found.prediction_type, found.resolution) == (0.18215, EPSILON, 512)
    assert replace(found.unet, heads=None) == family.unet


def test_a_description_of_sgm_tells_heads_by_their_width_and_the_layers(tmp_path):
    found = applied(tmp_path, detect(file_shapes("tiny-sdxl")), described("tiny-sdxl"))
    assert found.unet.heads == (2, 4, 8)  # 32, 64 and 128 channels, 16 a head
    assert found.scale_factor == 0.13025
    assert [text.hidden_index for text in found.text] == [11, -2]
    assert not any(text.final_norm for text in found.text)


@pytest.mark.parametrize("name", [SD1, SD2, SDXL])
@pytest.mark.parametrize("prediction", [EPSILON, V_PREDICTION])
def test_what_is_written_reads_back_as_the_same_family(tmp_path, name, prediction):
    family = replace(small_family(name), prediction_type=prediction, scale_factor=0.3)
    if name != SDXL:
        family = replace(family, resolution=64)
    assert applied(tmp_path, forget(family), describe(family)) == family


def test_inpainting_forms_are_written_for_the_webuis_inpainting_class(tmp_path):
    small = small_family(SD1)
    family = replace(small, unet=replace(small.unet, in_channels=9))
    assert "LatentInpaintDiffusion" in describe(family)
    assert applied(tmp_path, family, describe(family)).variant == "inpainting"


@pytest.mark.parametrize("name", ["tiny-sd1", "tiny-sdxl"])
def test_what_is_written_names_only_settings_that_the_webui_accepted(tmp_path, name):
    family = applied(tmp_path, detect(file_shapes(name)), described(name))

    def setting_names(node, path=""):
        if isinstance(node, dict):
            for key, value in node.items():
                yield f"{path}.{key}"
                yield from setting_names(value, f"{path}.{key}")

    known = set(setting_names(described(name))) | {
        ".model.base_learning_rate", ".model.params.parameterization",
        ".model.params.unet_config.params.use_linear_in_transformer",
    }
    assert set(setting_names(yaml.safe_load(describe(family)))) <= known


def test_unknown_heads_cannot_be_described():
    with pytest.raises(ValueError, match="heads"):
        describe(detect(file_shapes("tiny-sd1")))


def test_every_disagreement_with_the_weights_is_named_at_once(tmp_path):
    data = described("tiny-sd1")
    unet = data["model"]["params"]["unet_config"]["params"]
    unet |= {"model_channels": 320, "channel_mult": [1, 2, 4], "context_dim": 1024}
    data["model"]["params"]["first_stage_config"]["params"]["ddconfig"]["ch"] = 128
    with pytest.raises(UserError) as caught:
        applied(tmp_path, detect(file_shapes("tiny-sd1")), data)
    text = str(caught.value)
    assert len(caught.value.problems) == 4
    for words in ("model_channels 320, the weights have 32", "channel_mult", "context_dim", "the VAE's ch 128"):
        assert words in text
    assert all(problem.where.endswith("model.yaml") for problem in caught.value.problems)


@pytest.mark.parametrize(("change", "words"), [
    ({"parameterization": "x0"}, "parameterization x0"),
    ({"scale_factor": "large"}, "scale_factor"),
    ({"beta_schedule": "cosine"}, "beta_schedule cosine"),
    ({"timesteps": -1}, "timesteps"),
])
def test_what_is_not_supported_is_refused(tmp_path, change, words):
    data = described("tiny-sd1")
    data["model"]["params"] |= change
    with pytest.raises(UserError, match=words):
        applied(tmp_path, detect(file_shapes("tiny-sd1")), data)


def test_heads_that_do_not_divide_the_channels_are_refused(tmp_path):
    data = described("tiny-sd1")
    data["model"]["params"]["unet_config"]["params"]["num_heads"] = 7
    with pytest.raises(UserError, match="7 attention heads"):
        applied(tmp_path, detect(file_shapes("tiny-sd1")), data)


def test_sgm_with_another_noise_than_ddpms_is_refused(tmp_path):
    data = described("tiny-sdxl")
    data["model"]["params"]["denoiser_config"]["params"]["discretization_config"]["target"] = "sgm.x.EDMDiscretization"
    with pytest.raises(UserError, match="EDMDiscretization"):
        applied(tmp_path, detect(file_shapes("tiny-sdxl")), data)


@pytest.mark.parametrize("text", ["", "model: {}\n", "- a\n", "model: [1, 2]\n"])
def test_files_that_describe_no_model_are_named(tmp_path, text):
    with pytest.raises(UserError, match=r"model\.yaml"):
        applied(tmp_path, small_family(SD1), text)


def test_v_prediction_of_sd2_comes_with_its_resolution(tmp_path):
    family = replace(PUBLISHED[SD2], prediction_guessed=True)
    found = applied(tmp_path, family, describe(replace(family, prediction_type=V_PREDICTION)))
    assert (found.prediction_type, found.prediction_guessed, found.resolution) == (V_PREDICTION, False, 768)
    found = applied(tmp_path, family, describe(family))
    assert (found.prediction_type, found.resolution) == (EPSILON, 512)


def test_image_sizes_of_published_models_are_not_believed(tmp_path):
    data = yaml.safe_load(describe(PUBLISHED[SD1]))
    data["model"]["params"]["image_size"] = 16  # as instruct-pix2pix writes
    assert applied(tmp_path, PUBLISHED[SD1], data).resolution == 512
