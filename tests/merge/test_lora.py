"""LoRAs in a merge, against the products worked out in float64."""
import numpy as np
import pytest
import torch

from lib_sdtrain.errors import UserError
from tests.merge.models import UNET, merged, run, state, write

QUERY = UNET + "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
CONV = UNET + "input_blocks.1.0.in_layers.2.weight"
TEXT = "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight"
KOHYA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.fixture
def a(tmp_path):
    return write(tmp_path / "a.safetensors", state(fill=0, dtype=torch.float32))


def rand(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32))


def bake(tmp_path, a, tensors, weight="1"):
    path = write(tmp_path / "lora.safetensors", tensors)
    return merged(tmp_path, a=a, method="no_interpolation", lora=[f"{path}:{weight}"])


def close(found, expected):
    np.testing.assert_allclose(found.double().numpy(), np.asarray(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("down", "up"),
    [(f"{KOHYA}.lora_down.weight", f"{KOHYA}.lora_up.weight"),
     ("lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_down.weight",
      "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_up.weight"),
     ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight",
      "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_B.weight"),
     ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora.down.weight",
      "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora.up.weight")],
)  # fmt: skip
def test_every_naming_reaches_the_same_layer(tmp_path, a, down, up):
    tensors = {down: rand(2, 4), up: rand(4, 2, seed=1)}
    result = bake(tmp_path, a, tensors, "0.5")
    close(result[QUERY], 0.5 * rand(4, 2, seed=1).double().numpy() @ rand(2, 4).double().numpy())
    assert not any(tensor.any() for key, tensor in result.items() if key != QUERY and tensor.shape in [(4, 4), (4,)])


def test_alpha_over_rank_scales_the_change(tmp_path, a):
    tensors = {f"{KOHYA}.lora_down.weight": rand(2, 4), f"{KOHYA}.lora_up.weight": rand(4, 2)}
    tensors[f"{KOHYA}.alpha"] = torch.tensor(0.5)
    close(bake(tmp_path, a, tensors)[QUERY], 0.25 * rand(4, 2).double().numpy() @ rand(2, 4).double().numpy())


def test_convolutions_are_changed_as_matrices_and_with_a_core(tmp_path, a):
    name = "lora_unet_down_blocks_0_resnets_0_conv1"
    plain = {f"{name}.lora_down.weight": rand(2, 4, 3, 3), f"{name}.lora_up.weight": rand(4, 2, 1, 1)}
    expected = np.einsum("ir,rjkl->ijkl", rand(4, 2, 1, 1)[:, :, 0, 0].double(), rand(2, 4, 3, 3).double())
    close(bake(tmp_path, a, plain)[CONV], expected)
    core = {f"{name}.lora_down.weight": rand(2, 4, 1, 1), f"{name}.lora_mid.weight": rand(3, 2, 3, 3),
            f"{name}.lora_up.weight": rand(4, 3, 1, 1)}  # fmt: skip
    up, mid, down = (core[f"{name}.lora_{part}.weight"].double().numpy() for part in ("up", "mid", "down"))
    close(bake(tmp_path, a, core)[CONV], np.einsum("in,nmkl,mj->ijkl", up[:, :, 0, 0], mid, down[:, :, 0, 0]))


def test_loha_is_a_product_of_products_and_lokr_a_kronecker_product(tmp_path, a):
    loha = {f"{KOHYA}.hada_w{i}_{x}": rand(*((4, 2) if x == "a" else (2, 4)), seed=i) for i in (1, 2) for x in "ab"}
    one, two = (loha[f"{KOHYA}.hada_w{i}_a"].double() @ loha[f"{KOHYA}.hada_w{i}_b"].double() for i in (1, 2))
    close(bake(tmp_path, a, {**loha, f"{KOHYA}.alpha": torch.tensor(1.0)})[QUERY], one * two / 2)
    lokr = {f"{KOHYA}.lokr_w1": rand(2, 2), f"{KOHYA}.lokr_w2_a": rand(2, 1), f"{KOHYA}.lokr_w2_b": rand(1, 2)}
    close(bake(tmp_path, a, {**lokr, f"{KOHYA}.alpha": torch.tensor(3.0)})[QUERY],
          3 * np.kron(rand(2, 2).double(), rand(2, 1).double().numpy() @ rand(1, 2).double().numpy()))


def test_text_encoder_and_joined_projections_are_changed(tmp_path, a):
    name = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    tensors = {f"{name}.lora_down.weight": rand(1, 4), f"{name}.lora_up.weight": rand(4, 1)}
    close(bake(tmp_path, a, tensors)[TEXT], rand(4, 1).double().numpy() @ rand(1, 4).double().numpy())
    joined = state("sdxl", fill=0, dtype=torch.float32)
    key = "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight"
    joined = {k: torch.zeros(12, 4) if k.endswith("in_proj_weight") else t for k, t in joined.items()}
    xl = write(tmp_path / "xl.safetensors", joined)
    name = "lora_te2_text_model_encoder_layers_0_self_attn_k_proj"
    result = bake(tmp_path, xl, {f"{name}.lora_down.weight": rand(1, 4), f"{name}.lora_up.weight": rand(4, 1)})[key]
    close(result[4:8], rand(4, 1).double().numpy() @ rand(1, 4).double().numpy())
    assert not result[:4].any()
    assert not result[8:].any()


def test_block_weights_multiply_the_weight(tmp_path, a):
    path = write(tmp_path / "lora.safetensors", {f"{KOHYA}.diff": torch.ones(4, 4)})
    blocks = ",".join("0.25" if n == 2 else "9" for n in range(26))  # IN01
    result = merged(tmp_path, a=a, method="no_interpolation", lora=[f"{path}:0.5:{blocks}", f"{path}:2"])
    close(result[QUERY], np.full((4, 4), 0.5 * 0.25 + 2))
    off = ",".join("0" if n == 2 else "9" for n in range(26))
    assert not merged(tmp_path, a=a, method="no_interpolation", lora=[f"{path}:1:{off}"])[QUERY].any()


def test_a_lora_goes_on_top_of_the_merged_weights(tmp_path, a):
    b = write(tmp_path / "b.safetensors", state(fill=1, dtype=torch.float32))
    path = write(tmp_path / "lora.safetensors", {f"{KOHYA}.diff": torch.ones(4, 4)})
    result = merged(tmp_path, a=a, b=b, alpha=0.25, lora=[f"{path}:2"])
    close(result[QUERY], np.full((4, 4), 2.25))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [({"lora_unet_nowhere.lora_up.weight": rand(4, 1)}, "changes no layer of sd1"),
     ({"x": rand(2)}, "this is not a LoRA"),
     ({f"{KOHYA}.lora_down.weight": rand(2, 8), f"{KOHYA}.lora_up.weight": rand(8, 2)}, "made for another model"),
     ({f"{KOHYA}.oft_blocks": rand(2, 8)}, "of a kind that is not supported")],
)  # fmt: skip
def test_what_cannot_be_applied_is_named(tmp_path, a, tensors, message):
    path = write(tmp_path / "lora.safetensors", tensors)
    with pytest.raises(UserError, match=message):
        run(tmp_path, a=a, method="no_interpolation", lora=[f"{path}:1"])
    with pytest.raises(UserError, match="has no weight; write FILE:WEIGHT"):
        run(tmp_path, a=a, method="no_interpolation", lora=[path])


def test_a_full_difference_changes_the_bias_too(tmp_path, a):
    name = "lora_unet_down_blocks_0_resnets_0_conv1"
    result = bake(tmp_path, a, {f"{name}.diff": rand(4, 4, 3, 3), f"{name}.diff_b": rand(4)}, "0.5")
    close(result[CONV], 0.5 * rand(4, 4, 3, 3).double())
    close(result[CONV.replace("weight", "bias")], 0.5 * rand(4).double())
    only = bake(tmp_path, a, {f"{name}.diff_b": rand(4)})
    close(only[CONV.replace("weight", "bias")], rand(4).double())
    assert not only[CONV].any()
    with pytest.raises(UserError, match="to_q changes a bias, and the layer has none"):
        bake(tmp_path, a, {f"{KOHYA}.diff": rand(4, 4), f"{KOHYA}.diff_b": rand(4)})


def test_a_modules_own_scale_goes_before_alpha_over_rank(tmp_path, a):
    tensors = {f"{KOHYA}.lora_down.weight": rand(2, 4), f"{KOHYA}.lora_up.weight": rand(4, 2),
               f"{KOHYA}.alpha": torch.tensor(0.5), f"{KOHYA}.scale": torch.tensor(0.75)}  # fmt: skip
    close(bake(tmp_path, a, tensors)[QUERY], 0.75 * rand(4, 2).double().numpy() @ rand(2, 4).double().numpy())
    close(bake(tmp_path, a, {f"{KOHYA}.diff": rand(4, 4), f"{KOHYA}.scale": torch.tensor(0.75)})[QUERY],
          0.75 * rand(4, 4).double())


def test_layers_that_the_checkpoint_lacks_are_told(tmp_path):
    tensors = {key: t for key, t in state().items() if not key.startswith("cond_stage_model.")}
    name = "lora_te_" + TEXT.removeprefix("cond_stage_model.transformer.").removesuffix(".weight").replace(".", "_")
    halves = {f"{one}.{part}.weight": rand(*shape) for one in (KOHYA, name)
              for part, shape in (("lora_down", (2, 4)), ("lora_up", (4, 2)))}
    network = write(tmp_path / "lora.safetensors", halves)
    document, _ = run(tmp_path, a=write(tmp_path / "unet.safetensors", tensors), method="no_interpolation",
                      lora=[f"{network}:1"])
    assert f"lora.safetensors: 1 tensors that it changes are not in the result ({TEXT} ...)" in document["notices"]
