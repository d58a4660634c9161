"""The block of every key, against counts and tables observed from the other mergers."""
import re

import pytest

from lib_sdtrain.merge.blocks import CONVENTIONS, KEEP, LAYOUTS, block_of, without_rule
from lib_sdtrain.settings.merge import CONVENTIONS as DECLARED
from tests.merge.models import UNET, VAE, key_list

# Tensors in each block of SD1, counted from a published checkpoint; time_embed (4) and out (4) come on top.
SD1_COUNTS = {
    "IN00": 2, "IN01": 36, "IN02": 36, "IN03": 2, "IN04": 38, "IN05": 36, "IN06": 2, "IN07": 38, "IN08": 36, "IN09": 2,
    "IN10": 10, "IN11": 10, "M00": 46, "OUT00": 12, "OUT01": 12, "OUT02": 14, "OUT03": 38, "OUT04": 38, "OUT05": 40,
    "OUT06": 38, "OUT07": 38, "OUT08": 40, "OUT09": 38, "OUT10": 38, "OUT11": 38,
}  # fmt: skip

# What each merger does with the disputed tensors: (SD1 and SD2, SDXL).
DISPUTED = {
    "mbw": {"time_embed": ("IN00", "IN00"), "label_emb": (None, "IN00"), "bare": ("BASE", "BASE")},
    "supermerger-2023": {"time_embed": ("OUT11", KEEP), "label_emb": (None, KEEP), "bare": (KEEP, KEEP)},
    "supermerger": {"time_embed": ("IN00", "IN00"), "label_emb": (None, "IN00"), "bare": (KEEP, KEEP)},
    "sd-mecha": {"time_embed": ("BASE", "BASE"), "label_emb": (None, "BASE"), "bare": ("BASE", "BASE")},
}


def test_every_convention_that_can_be_chosen_has_a_table():
    assert tuple(CONVENTIONS) == DECLARED == tuple(DISPUTED)


def test_the_blocks_of_sd1_have_as_many_tensors_as_published_files():
    counts = dict.fromkeys(SD1_COUNTS, 0)
    for key in key_list("sd1"):
        if key.startswith(UNET) and ".time_embed." not in key and not key.startswith(UNET + "out."):
            counts[block_of(key, LAYOUTS["sd1"])] += 1
    assert counts == SD1_COUNTS
    assert sum(counts.values()) + 8 == 686


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("convention", list(DISPUTED))
def test_undisputed_tensors_are_in_the_block_that_their_name_says(name, convention):
    layout = LAYOUTS[name]
    for key in key_list(name):
        block = block_of(key, layout, convention)
        number = re.search(r"(input|output)_blocks\.(\d+)\.", key)
        if number:
            assert block == {"input": "IN", "output": "OUT"}[number[1]] + number[2].zfill(2)
        elif "middle_block" in key:
            assert block == "M00"
        elif key.startswith((VAE, "cond_stage", "conditioner")) and key.endswith(("weight", "bias")):
            assert block == "BASE"
        elif key.startswith(UNET + "out."):
            assert block == ("OUT08" if name == "sdxl" else "OUT11")


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("convention", list(DISPUTED))
def test_disputed_tensors_go_where_that_merger_puts_them(name, convention):
    expected = {kind: pair[name == "sdxl"] for kind, pair in DISPUTED[convention].items()}
    found = {kind: set() for kind in expected}
    for key in key_list(name):
        kind = next((kind for kind in ("time_embed", "label_emb") if f"{UNET}{kind}." in key), None)
        if key.endswith(("positional_embedding", "text_projection", "logit_scale")):
            kind = "bare"
        if kind:
            found[kind].add(block_of(key, LAYOUTS[name], convention))
    for kind, blocks in found.items():
        absent = expected[kind] is None or (kind == "bare" and name == "sd1")
        assert blocks == (set() if absent else {expected[kind]}), kind


@pytest.mark.parametrize("convention", list(DISPUTED))
@pytest.mark.parametrize(
    "key", [
        "cond_stage_model.transformer.text_model.embeddings.position_ids", "betas", "alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod",
        "posterior_log_variance_clipped", "model_ema.decay", "model_ema.num_updates", "v_pred", "ztsnr",
        "edm_vpred.sigma_max", "denoiser.sigmas", "cond_stage_model.model.attn_mask",
    ],
)  # fmt: skip
def test_numbers_that_mean_something_as_they_are_are_never_merged(key, convention):
    assert all(block_of(key, layout, convention) == KEEP for layout in LAYOUTS.values())
    assert without_rule([key], LAYOUTS["sd1"]) == []


def test_moving_averages_go_with_base_but_for_supermerger_2023s_time_embed():
    key = "model_ema.diffusion_modeltime_embed0weight"
    blocks = {name: block_of(key, LAYOUTS["sd1"], name) for name in CONVENTIONS}
    assert blocks == {"mbw": "BASE", "supermerger-2023": "OUT11", "supermerger": "BASE", "sd-mecha": "BASE"}
    assert block_of("model_ema.diffusion_modelinput_blocks10weight", LAYOUTS["sd1"], "supermerger-2023") == "BASE"


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
def test_no_tensor_of_a_published_family_is_without_a_rule(name):
    assert without_rule(key_list(name), LAYOUTS[name]) == []


def test_a_tensor_that_no_rule_covers_is_reported_and_kept():
    keys = ["embedding_manager.embedder.weight", UNET + "new_layer.weight", UNET + "input_blocks.10.0.weight"]
    assert without_rule(keys, LAYOUTS["sdxl"]) == keys
    assert without_rule(keys, LAYOUTS["sd1"]) == keys[:2]
    assert block_of(keys[0], LAYOUTS["sd1"]) == KEEP
