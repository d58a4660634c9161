"""Key tables, against the key lists of real files, the modules' own names and diffusers' converters."""
import pytest
import torch

from lib_sdtrain.model.build import empty_module, text_config, unet_config, vae_config
from lib_sdtrain.model.family import PUBLISHED, SD1, SD2, SDXL
from lib_sdtrain.model.keys import UNET, Row, ema_key, part_rows, text_rows, unet_rows, vae_rows
from tests.model.layouts import file_shapes, small_family

FAMILIES = [pytest.param(family, id=f"{name}-{size}")
            for name in (SD1, SD2, SDXL)
            for size, family in (("published", PUBLISHED[name]), ("small", small_family(name)))]


def keys_of(family):
    return [row.key for rows in part_rows(family).values() for row in rows]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_of_every_module_stands_in_one_row(family):
    keys = keys_of(family)
    assert len(keys) == len(set(keys))
    for part, rows in part_rows(family).items():
        names = [name for row in rows for name in row.names]
        assert sorted(names) == sorted(name for name, _ in empty_module(family, part).named_parameters())


@pytest.mark.parametrize(("layout", "family"), [("full-sd15", PUBLISHED[SD1]), ("tiny-sdxl", None)])
def test_the_tables_name_every_key_of_a_real_file(layout, family):
    from lib_sdtrain.model.detection import detect

    shapes = file_shapes(layout)
    family = family or detect(shapes)
    left = set(shapes) - set(keys_of(family))
    assert set(keys_of(family)) <= set(shapes)
    assert {key.rpartition(".")[2] for key in left} <= {"position_ids", "logit_scale"}


def test_full_size_sd15_goes_to_modules_and_back_in_the_files_shapes():
    family, shapes = PUBLISHED[SD1], file_shapes("full-sd15")
    for part, rows in part_rows(family).items():
        module = {name: tuple(p.shape) for name, p in empty_module(family, part).named_parameters()}
        for row in rows:
            tensor = torch.empty(shapes[row.key], device="meta")
            held = row.to_module(tensor, module)
            assert {name: tuple(value.shape) for name, value in held.items()} == {n: module[n] for n in row.names}
            assert tuple(row.to_file(held, shapes[row.key]).shape) == shapes[row.key]


@pytest.mark.parametrize(("name", "millions"), [(SD1, 859.520964), (SD2, 865.910724), (SDXL, 2567.463684)])
def test_unets_have_the_published_number_of_weights(name, millions):
    module = empty_module(PUBLISHED[name], UNET)
    assert sum(p.numel() for p in module.parameters()) == round(millions * 1e6)


def tagged(rows, shape):
    """A different number in every tensor, so that a converter's result tells where each came from."""
    return {row.key: torch.full(shape(row), float(number + 1)) for number, row in enumerate(rows)}


def came_from(rows):
    return {name: float(number + 1) for number, row in enumerate(rows) for name in row.names}


# the converter knows one number of residual blocks for all levels
@pytest.mark.parametrize("family", [p for p in FAMILIES if len(set(p.values[0].unet.num_res_blocks)) == 1])
def test_unet_names_are_those_of_diffusers_converter(family):
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    rows = unet_rows(family.unet)
    config = {"class_embed_type": None, "num_class_embeds": None, **unet_config(family.unet)}
    config.setdefault("addition_embed_type", None)
    config["layers_per_block"] = config["layers_per_block"][0]
    converted = convert_ldm_unet_checkpoint(tagged(rows, lambda row: ()), config)
    assert {name: value.item() for name, value in converted.items()} == came_from(rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_vae_names_are_those_of_diffusers_converter(family):
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    rows = vae_rows(family.vae)
    config = vae_config(family.vae, family.scale_factor)
    converted = convert_ldm_vae_checkpoint(tagged(rows, lambda row: (1, 1, 1, 1)), config)
    assert {name: value.flatten()[0].item() for name, value in converted.items()} == came_from(rows)


@pytest.mark.parametrize("config", [PUBLISHED[SD2].text[0], PUBLISHED[SDXL].text[1]], ids=["ViT-H", "ViT-bigG"])
def test_open_clip_names_are_those_of_diffusers_converter(config):
    from types import SimpleNamespace

    from diffusers.loaders.single_file_utils import SD_2_TEXT_ENCODER_KEYS_TO_IGNORE, convert_open_clip_checkpoint

    rows = text_rows(config)
    tensors = tagged(rows, lambda row: (6, 2) if "in_proj" in row.key else (2, 2))
    tensors.setdefault(f"{config.prefix}text_projection", torch.zeros(2, 2))
    for tensor in tensors.values():
        if tensor.shape[0] == 6:
            tensor += torch.arange(6)[:, None] // 2 / 10
    model = SimpleNamespace(config=SimpleNamespace(projection_dim=2))
    converted = convert_open_clip_checkpoint(model, tensors, prefix=config.prefix)
    expected = came_from(rows)
    for index, letter in enumerate("qkv"):
        expected |= {name: value + index / 10 for name, value in expected.items() if f".{letter}_proj." in name}
    last = set(SD_2_TEXT_ENCODER_KEYS_TO_IGNORE)  # the layer that SD2 never uses, which diffusers drops
    dropped = {name for row in rows if row.key in last for name in row.names}
    found = {name: value.flatten()[0].item() for name, value in converted.items() if name != "text_projection.weight"}
    expected = {n: v for n, v in expected.items() if n not in dropped and n != "text_projection.weight"}
    assert found == pytest.approx(expected)


def test_clip_names_are_transformers_own_below_the_prefix():
    for family in (PUBLISHED[SD1], PUBLISHED[SDXL]):
        config = family.text[0]
        assert all(row.key == config.prefix + row.names[0] for row in text_rows(config))
    assert text_config(PUBLISHED[SD1].text[0])["num_attention_heads"] == 12


def test_joined_tensors_part_and_join_exactly():
    row = Row("k", ("q", "k", "v"))
    tensor = torch.arange(24.0).reshape(6, 4)
    parts = row.to_module(tensor, dict.fromkeys("qkv", (2, 4)))
    assert torch.equal(parts["k"], tensor[2:4])
    assert torch.equal(row.to_file(parts, (6, 4)), tensor)


def test_transposed_matrices_and_kernels_of_one_pixel_go_both_ways():
    matrix = torch.arange(6.0).reshape(2, 3)
    row = Row("k", ("w",), transposed=True)
    assert torch.equal(row.to_module(matrix, {"w": (3, 2)})["w"], matrix.t())
    assert torch.equal(row.to_file({"w": matrix.t()}, (2, 3)), matrix)
    kernel = torch.arange(4.0).reshape(2, 2, 1, 1)
    row = Row("k", ("w",))
    assert row.to_module(kernel, {"w": (2, 2)})["w"].shape == (2, 2)
    assert torch.equal(row.to_file(row.to_module(kernel, {"w": (2, 2)}), (2, 2, 1, 1)), kernel)


@pytest.mark.parametrize(("shape", "wanted"), [((4, 2), (2, 4)), ((8,), (2, 4)), ((2, 2, 3, 3), (2, 18))])
def test_tensors_of_another_shape_are_refused_though_they_have_as_many_values(shape, wanted):
    with pytest.raises(ValueError, match=r"k: .* does not fit"):
        Row("k", ("w",)).to_module(torch.zeros(shape), {"w": wanted})


def test_tensors_that_do_not_part_evenly_are_refused():
    with pytest.raises(ValueError, match="3 equal parts"):
        Row("k", ("q", "k", "v")).to_module(torch.zeros(7, 2), dict.fromkeys("qkv", (2, 2)))


def test_moving_averages_stand_where_ldm_puts_them():
    assert ema_key("model.diffusion_model.input_blocks.1.0.in_layers.0.weight") == (
        "model_ema.diffusion_modelinput_blocks10in_layers0weight"
    )
    keys = [ema_key(row.key) for row in part_rows(PUBLISHED[SDXL])[UNET]]
    assert len(keys) == len(set(keys))
