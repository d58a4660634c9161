"""Opening checkpoints: what they are, which parts they have, in every form in which people have them."""
from dataclasses import replace

import pytest
import torch

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.build import load_model, to_file_tensors
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.model.detection import detect
from lib_sdtrain.model.family import EPSILON, PUBLISHED, SD1, SD2, SDXL, V_PREDICTION
from lib_sdtrain.model.keys import ema_key, part_rows
from tests.model.layouts import file_shapes, small_family
from tests.model.small import random_tensors, write_small

UNET_FIRST = "model.diffusion_model.input_blocks.0.0.weight"


def published_shapes(name):
    """A published file's layout. SD1.5's is a real file's; the others are made from the modules."""
    if name == SD1:
        return dict(file_shapes("full-sd15"))
    from lib_sdtrain.model.build import empty_module
    from tests.model.small import file_shape

    shapes = {}
    for part, rows in part_rows(PUBLISHED[name]).items():
        module = {key: tuple(p.shape) for key, p in empty_module(PUBLISHED[name], part).named_parameters()}
        shapes |= {row.key: file_shape(row, module) for row in rows}
    return shapes


@pytest.fixture(scope="module", params=[SD1, SD2, SDXL])
def published(request):
    return request.param, published_shapes(request.param)


def test_published_files_are_recognised_with_their_heads(published):
    name, shapes = published
    found = detect(shapes)
    assert found == replace(PUBLISHED[name], prediction_guessed=name == SD2)
    assert not found.scaled_down


@pytest.mark.parametrize(("channels", "variant"), [(9, "inpainting"), (8, "instruct_pix2pix")])
def test_inpainting_and_instruction_forms_are_recognised(published, channels, variant):
    name, shapes = published
    first = shapes[UNET_FIRST]
    found = detect(shapes | {UNET_FIRST: (first[0], channels, *first[2:])})
    assert (found.name, found.variant, found.unet.heads) == (name, variant, PUBLISHED[name].unet.heads)
    assert not found.prediction_guessed


def test_a_unet_without_text_encoder_and_vae_still_tells_its_family(published):
    name, shapes = published
    found = detect({key: shape for key, shape in shapes.items() if key.startswith("model.diffusion_model.")})
    assert replace(found, prediction_guessed=False) == PUBLISHED[name]


def test_markers_tell_v_prediction_and_zero_terminal_snr(published):
    _, shapes = published
    found = detect(shapes | {"v_pred": (0,), "ztsnr": (0,)})
    assert (found.prediction_type, found.prediction_guessed) == (V_PREDICTION, False)
    assert found.schedule.zero_terminal_snr
    assert found.schedule.table()[-1] == 0


@pytest.mark.parametrize(("extra", "words"), [
    ({"depth_model.model.pretrained.act_postprocess3.0.project.0.bias": (768,)}, "depth-to-image"),
    ({"embedder.model.ln_final.weight": (768,)}, "unCLIP"),
    ({"cond_stage_model.roberta.embeddings.word_embeddings.weight": (250002, 1024)}, "AltDiffusion"),
    ({UNET_FIRST: (320, 7, 3, 3)}, "7 input channels"),
    ({"model.diffusion_model.input_blocks.1.0.out_layers.3.weight": (300, 320, 3, 3)}, "do not form levels"),
    ({"model.diffusion_model.input_blocks.12.0.strange": (1,)}, r"input_blocks\.12 is of no known form"),
])
def test_relatives_and_strangers_are_refused_by_name(extra, words):
    with pytest.raises(UserError, match=words):
        detect(file_shapes("full-sd15") | extra)


def test_sdxls_refiner_and_pruned_forms_are_refused_by_name():
    shapes = published_shapes(SDXL)
    refiner = {key.replace("embedders.1.", "embedders.0."): shape for key, shape in shapes.items()
               if "embedders.0." not in key}
    with pytest.raises(UserError, match="SDXL's refiner"):
        detect(refiner)
    with pytest.raises(UserError, match="SSD-1B"):
        detect({key: shape for key, shape in shapes.items() if "middle_block.1." not in key})


@pytest.mark.parametrize("name", [SD1, SD2, SDXL])
def test_scaled_down_models_are_recognised_from_shapes_all_but_the_heads(tmp_path, name):
    family = small_family(name)
    found = open_checkpoint(write_small(tmp_path / "m.safetensors", family, config=False)).family
    assert found.scaled_down
    assert found.unet.heads is None
    assert replace(found, unet=replace(found.unet, heads=family.unet.heads), prediction_guessed=False) == family


def test_a_description_that_disagrees_is_reported_with_its_own_path(tmp_path):
    path = write_small(tmp_path / "m.safetensors", small_family(SD1))
    path.with_suffix(".yaml").write_text("model: {params: {unet_config: {params: {model_channels: 320}}}}")
    with pytest.raises(UserError, match=r"m\.yaml: it describes model_channels 320, the weights have 32"):
        open_checkpoint(path)


@pytest.mark.parametrize(("told", "kind"), [("v", V_PREDICTION), ("epsilon", EPSILON)])
def test_metadata_tells_the_prediction_type(tmp_path, told, kind):
    path = write_small(
        tmp_path / "m.safetensors", small_family(SD2), config=False, metadata={"modelspec.prediction_type": told},
    )
    family = open_checkpoint(path).family
    assert (family.prediction_type, family.prediction_guessed) == (kind, False)


def test_prediction_types_are_chosen_by_the_user_where_asked():
    guessed = replace(PUBLISHED[SD2], prediction_guessed=True)
    assert guessed.with_prediction_type("auto") is guessed
    chosen = guessed.with_prediction_type(V_PREDICTION)
    assert (chosen.prediction_type, chosen.prediction_guessed, chosen.resolution) == (V_PREDICTION, False, 768)
    assert PUBLISHED[SD1].with_prediction_type(V_PREDICTION).resolution == 512


def renamed(tensors, old, new):
    return {new + key.removeprefix(old) if key.startswith(old) else key: tensor for key, tensor in tensors.items()}


@pytest.mark.parametrize(("name", "old", "new"), [
    (SD1, "cond_stage_model.transformer.text_model.", "cond_stage_model.transformer."),
    (SD2, "cond_stage_model.", "conditioner.embedders.0."),
])
def test_older_and_newer_names_of_the_text_encoder_read_and_go_back_under_the_files_names(tmp_path, name, old, new):
    family = small_family(name)
    if name == SD2:  # the WebUI knows SD2 Turbo by the width of its text encoder
        family = replace(family, unet=replace(family.unet, context_dim=1024),
                         text=(replace(family.text[0], width=1024, vocab_size=50, layers=2),))
    tensors = random_tensors(family)
    path = write_small(tmp_path / "m.safetensors", family, renamed(tensors, old, new))
    checkpoint = open_checkpoint(path)
    assert set(checkpoint.keys()) == set(tensors)
    assert set(checkpoint.file_keys.values()) == set(renamed(tensors, old, new))
    model = load_model(checkpoint, "cpu", torch.float32)
    for key, tensor in to_file_tensors("text_encoder", model.text_encoders[0], checkpoint).items():
        assert torch.equal(tensor, tensors[key])
        assert checkpoint.file_keys[key].startswith(new)


def test_position_ids_may_be_missing(tmp_path):
    tensors = {key: t for key, t in random_tensors(small_family(SD1)).items() if not key.endswith("position_ids")}
    model = load_model(open_checkpoint(write_small(tmp_path / "m.safetensors", small_family(SD1), tensors)), "cpu",
                       torch.float32)
    positions = model.text_encoders[0].text_model.embeddings.position_ids
    assert torch.equal(positions, torch.arange(77)[None])


def test_parts_are_counted_as_present_only_when_complete(tmp_path):
    family = small_family(SD1)
    tensors = random_tensors(family)
    averages = {ema_key(row.key): tensors[row.key].clone() for row in part_rows(family)["unet"]}
    whole = open_checkpoint(write_small(tmp_path / "a.safetensors", family, tensors | averages))
    assert whole.parts == {"unet": True, "text_encoder": True, "vae": True, "ema": True}
    tensors.pop("first_stage_model.decoder.conv_in.bias")
    tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith("cond_stage_model.")}
    partial = open_checkpoint(write_small(tmp_path / "b.safetensors", family, tensors))
    assert partial.parts == {"unet": True, "text_encoder": False, "vae": False, "ema": False}


def test_a_checkpoint_from_torch_save_reads_like_safetensors(tmp_path):
    family = small_family(SD1)
    tensors = random_tensors(family)
    torch.save({"global_step": 7, "state_dict": tensors}, tmp_path / "m.ckpt")
    write_small(tmp_path / "m.safetensors", family, tensors)  # and the description
    checkpoint = open_checkpoint(tmp_path / "m.ckpt")
    assert checkpoint.family == family
    for key, tensor in tensors.items():
        assert torch.equal(checkpoint.tensor(key), tensor)


def test_sizes_are_those_of_the_tensors(tmp_path):
    family = small_family(SD1)
    tensors = random_tensors(family, dtype=torch.float16)
    checkpoint = open_checkpoint(write_small(tmp_path / "m.safetensors", family, tensors))
    assert checkpoint.size == sum(tensor.nbytes for tensor in tensors.values())
    counts = checkpoint.parameter_counts()
    assert set(counts) == {"unet", "vae", "text_encoder"}
    assert counts["vae"] == sum(t.numel() for key, t in tensors.items() if key.startswith("first_stage_model."))


def test_other_files_are_refused_with_their_path(tmp_path):
    path = write_small(tmp_path / "l.safetensors", None, {"lora_unet_x.lora_down.weight": torch.zeros(1)}, config=False)
    with pytest.raises(UserError, match=r"l\.safetensors: this is a LoRA, not a checkpoint"):
        open_checkpoint(path)
    with pytest.raises(UserError, match="no such file"):
        open_checkpoint(tmp_path / "none.safetensors")
