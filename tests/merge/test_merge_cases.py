"""Merging what people really have: other channels, missing parts, old names, EMA, wrong input, stops."""
import itertools

import pytest
import torch

from lib_sdtrain.errors import Cancelled, UserError
from lib_sdtrain.events import CancelToken, Notice, Phase
from lib_sdtrain.merge import compute, merge
from lib_sdtrain.merge.blocks import KEEP
from lib_sdtrain.merge.session import MergeSession
from lib_sdtrain.model.hashes import HashCache, sha256
from lib_sdtrain.settings.merge import MergeSettings
from tests.merge.models import LOGIT_SCALE, UNET, VAE, merged, read, run, same, state, wanted, write

FIRST = UNET + "input_blocks.0.0.weight"
RATIOS = {"sd1": [round(0.03 + 0.03 * n, 2) for n in range(26)], "sdxl": [round(0.03 + 0.03 * n, 2) for n in range(20)]}


def text(numbers):
    return ",".join(map(str, numbers))


@pytest.mark.parametrize(("channels", "count"), [(9, "inpainting"), (8, "instruct_pix2pix")])
def test_wider_input_is_merged_where_both_have_it(tmp_path, channels, count):
    a, b = state(seed=1, channels=channels), state(seed=2)
    paths = {"a": write(tmp_path / "a.safetensors", a), "b": write(tmp_path / "b.safetensors", b)}
    for alpha in (0.25, 1.0):
        result = merged(tmp_path, **paths, alpha=alpha)
        expected = ((1 - alpha) * a[FIRST][:, :4].float() + alpha * b[FIRST].float()).half()
        assert torch.equal(result[FIRST][:, :4], expected), count
        assert torch.equal(result[FIRST][:, 4:], a[FIRST][:, 4:])
    with pytest.raises(UserError, match=r"b: an? (inpainting|instruct-pix2pix) model must be model A"):
        run(tmp_path, a=paths["b"], b=paths["a"], alpha=0.5)


def test_models_of_other_families_are_refused(tmp_path, pair):
    xl = write(tmp_path / "xl.safetensors", state("sdxl"))
    with pytest.raises(UserError, match=r"b: xl.safetensors is sdxl, a.safetensors is sd1; only models of one family"):
        run(tmp_path, a=pair["a"], b=xl, alpha=0.5)
    assert not (tmp_path / "out.safetensors").exists()


def test_models_of_other_sizes_are_refused_with_an_example(tmp_path, pair):
    other = {key: t.repeat(2, *[1] * (t.dim() - 1)) if t.dim() == 4 else t for key, t in state(seed=2).items()}
    with pytest.raises(UserError, match=r"sizes differ: a 4x4x3x3, b 8x4x3x3"):
        run(tmp_path, a=pair["a"], b=write(tmp_path / "b.safetensors", other), alpha=0.5)


def without(tensors, *prefixes):
    return {key: t for key, t in tensors.items() if not key.startswith(prefixes)}


def test_a_part_that_a_lacks_is_taken_from_b_and_said_so(tmp_path):
    a, b = without(state(seed=1), VAE), state(seed=2)
    paths = {"a": write(tmp_path / "a.safetensors", a), "b": write(tmp_path / "b.safetensors", b)}
    document, _ = run(tmp_path, **paths, alpha=0.5)
    result = read(document["out"])
    assert all(torch.equal(result[key], b[key]) for key in b if key.startswith(VAE))
    assert any("A has no VAE: the result takes that of b.safetensors" in note for note in document["notices"])
    assert result.keys() == b.keys()


def test_tensors_that_only_a_has_stay_and_those_that_only_b_has_are_left_out(tmp_path):
    a, b = state(seed=1), state(seed=2)
    lone = UNET + "input_blocks.1.0.in_layers.0.weight"
    del b[lone]
    b["cond_stage_model.new.weight"] = torch.ones(3)
    paths = {"a": write(tmp_path / "a.safetensors", a), "b": write(tmp_path / "b.safetensors", b)}
    document, events = run(tmp_path, **paths, alpha=1.0)
    result = read(document["out"])
    assert torch.equal(result[lone], a[lone])
    assert result.keys() == a.keys()
    told = " ".join(event.text for event in events if isinstance(event, Notice))
    assert f"1 tensors are only in A and stay as they are ({lone} ...)" in told
    assert "1 tensors of b.safetensors are not in A: left out (cond_stage_model.new.weight ...)" in told


def test_old_names_of_the_text_encoder_are_matched_and_kept(tmp_path):
    a, b = state(seed=1), state(seed=2)
    old = {key.replace("transformer.text_model.", "transformer."): t for key, t in a.items()}
    paths = {"a": write(tmp_path / "a.safetensors", old), "b": write(tmp_path / "b.safetensors", b)}
    result = merged(tmp_path, **paths, alpha=1.0)
    key = "cond_stage_model.transformer.text_model.encoder.layers.3.mlp.fc1.weight"
    assert torch.equal(result[key.replace("text_model.", "")], b[key])
    assert result.keys() == old.keys()


def test_single_numbers_are_merged_or_kept_as_the_convention_says(tmp_path):
    key = LOGIT_SCALE["sd2"]
    paths = {x: write(tmp_path / f"{x}.safetensors", state("sd2", fill=n)) for n, x in enumerate("ab")}

    def scale(**settings):
        with MergeSession(wanted(tmp_path, **paths, alpha=0.5, **settings)) as session:
            return session.tensor(key)

    assert scale().item() == 0.5
    assert scale(blocks="supermerger-2023").item() == 0
    assert [scale(method=method).shape for method in ("slerp", "ties", "tensor_swap")] == [()] * 3


def with_ema(tensors, seed):
    torch.manual_seed(seed)
    unet = [key for key in tensors if key.startswith(UNET)]
    averages = {"model_ema." + key[len("model.") :].replace(".", ""): torch.randn(tensors[key].shape) for key in unet}
    return {**tensors, **averages, "model_ema.num_updates": torch.tensor(seed), "model_ema.decay": torch.tensor(0.5)}


def test_moving_averages_are_merged_dropped_or_used(tmp_path):
    a, b = with_ema(state(seed=1), 1), with_ema(state(seed=2), 2)
    paths = {"a": write(tmp_path / "a.safetensors", a), "b": write(tmp_path / "b.safetensors", b)}
    average = "model_ema." + FIRST[len("model.") :].replace(".", "")
    kept = merged(tmp_path, **paths, alpha=0.25)
    assert torch.equal(kept[average], 0.75 * a[average] + 0.25 * b[average])
    assert kept["model_ema.num_updates"].item() == 1
    dropped = merged(tmp_path, **paths, alpha=0.25, ema="drop")
    assert torch.equal(dropped[FIRST], kept[FIRST])
    assert not any(key.startswith("model_ema.") for key in dropped)
    used = merged(tmp_path, **paths, alpha=0.25, ema="use")
    assert torch.equal(used[FIRST], 0.75 * a[average] + 0.25 * b[average])
    assert used.keys() == dropped.keys()


def test_a_vae_file_takes_the_place_of_both_vaes(tmp_path, pair):
    vae = {key: t + 1 for key, t in state(seed=9, dtype=torch.float32).items() if key.startswith(VAE)}
    vae = {key: t for key, t in vae.items() if "nin_shortcut" not in key}  # all levels are equally wide here
    bare = {key.removeprefix(VAE): t for key, t in vae.items()}
    path = write(tmp_path / "vae.safetensors", bare)
    result = merged(tmp_path, a=pair["a"], b=pair["b"], alpha=0.5, vae=path)
    assert all(torch.equal(result[key], vae[key].half()) for key in vae)
    plain = merged(tmp_path, a=pair["a"], b=pair["b"], alpha=0.5)
    assert same(*({key: t for key, t in tensors.items() if key not in vae} for tensors in (result, plain)))


def test_element_weights_replace_the_block_weight_of_single_layers(tmp_path):
    a = write(tmp_path / "a.safetensors", state(fill=0, dtype=torch.float32))
    b = write(tmp_path / "b.safetensors", state(fill=1, dtype=torch.float32))
    rules = "OUT03-OUT05:cross-attention:0.5, OUT04:attn2.to_k:0.25\n:norm:0.75,NOT BASE:NOT norm attn2 emb:1"
    result = merged(tmp_path, a=a, b=b, alpha=0.125, elements=rules)
    block = UNET + "output_blocks.{}.1.transformer_blocks.0.{}.weight"
    value = lambda key: result[key].unique().item()  # noqa: E731
    assert value(block.format(3, "attn2.to_q")) == 0.5
    assert value(block.format(4, "attn2.to_k")) == 0.25
    assert value(block.format(4, "norm2")) == 0.75
    assert value(block.format(4, "attn1.to_k")) == 1
    assert value(UNET + "input_blocks.1.0.emb_layers.1.weight") == 0.125
    assert value("cond_stage_model.transformer.text_model.encoder.layers.0.layer_norm1.weight") == 0.75
    assert value("cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight") == 0.125


@pytest.mark.parametrize(
    ("rules", "message"),
    [("OUT12:attn:1", "there is no block OUT12"), ("attn:1", "not a rule"), ("IN01:attn:x", "'x' is not a number"),
     ("IN00:attn:1", "no tensor is called attn in IN00")],
)  # fmt: skip
def test_element_rules_that_say_nothing_are_errors(tmp_path, pair, rules, message):
    with pytest.raises(UserError, match=message):
        run(tmp_path, a=pair["a"], b=pair["b"], elements=rules)


def test_adjusting_scales_the_ends_and_shifts_the_colours(tmp_path):
    a = write(tmp_path / "a.safetensors", state(fill=1, dtype=torch.float32))
    result = merged(tmp_path, a=a, method="no_interpolation", adjust="1,2,3,4,5,6,7,8")
    value = lambda key: result[UNET + key].reshape(-1)[0].item()  # noqa: E731
    found = [value(key) for key in ("input_blocks.0.0.weight", "input_blocks.0.0.bias", "out.0.weight", "out.0.bias")]
    assert found == pytest.approx([0.99, 1.02, 0.98, 1.04])
    assert value("out.2.weight") == pytest.approx(0.97)
    # 0.02 (4, -5 + 6 + 8, 5/3 + 6 - 7, 10/3 - 7 + 8)
    shift = [0.08, 0.02 * 9, 0.02 * (5 / 3 - 1), 0.02 * (10 / 3 + 1)]
    assert result[UNET + "out.2.bias"].tolist() == pytest.approx([1 + x for x in shift])
    before = read(a)
    assert len([key for key, t in result.items() if not torch.equal(t, before[key])]) == 6


def test_adjusting_an_sdxl_model_uses_its_own_colours(tmp_path):
    a = write(tmp_path / "a.safetensors", state("sdxl", fill=0, dtype=torch.float32))
    result = merged(tmp_path, a=a, method="no_interpolation", adjust="0,0,0,1,2,3,4,5")
    expected = [0.02 * x for x in (1, 3 - 4 - 5, -4 + 5, 2)]
    assert result[UNET + "out.2.bias"].tolist() == pytest.approx(expected)


def test_discarded_tensors_are_left_out(tmp_path, pair):
    result = merged(tmp_path, a=pair["a"], b=pair["b"], discard=r"^first_stage_model\.|betas")
    assert not any(key.startswith(VAE) or key == "betas" for key in result)
    with pytest.raises(UserError, match="not a regular expression"):
        run(tmp_path, a=pair["a"], b=pair["b"], discard="(")


def test_presets_for_sd1_serve_sdxl_and_say_what_is_left_out(tmp_path):
    paths = {x: write(tmp_path / f"{x}.safetensors", state("sdxl", fill=n)) for n, x in enumerate("ab")}
    document, _ = run(tmp_path, **paths, weights_alpha="GRAD_A")
    assert document["blocks"]["OUT00"] == 0.9166666667
    assert len(document["blocks"]) == 20
    assert any("IN09=0.75" in note and "left out" in note for note in document["notices"])


def test_dice_fall_as_supermergers(tmp_path, pair):
    import numpy as np

    np.random.seed(1234)  # noqa: NPY002 - the generator that SuperMerger uses
    draws = np.random.rand(3000)  # noqa: NPY002
    fields = ["R", "0.5", "U", "X"] + ["0"] * 22
    dice = {"dice_seed": 1234, "dice_low": "0.2", "dice_high": "0.6"}
    document, _ = run(tmp_path, a=pair["a"], b=pair["b"], weights_alpha=",".join(fields), **dice)
    rolled = list(document["blocks"].values())[:4]
    assert rolled == [round(draws[0], 3), 0.5, round(1.5 - 2 * draws[2], 3), round(0.6 - 0.4 * draws[3], 3)]
    assert all(0.2 <= value <= 0.6 for value in rolled[3:])
    with pytest.raises(UserError, match="R asks for a random number; give a dice seed"):
        run(tmp_path, a=pair["a"], b=pair["b"], weights_alpha=",".join(fields))


def test_the_report_tells_which_tensors_took_which_weight(tmp_path, pair):
    weights = RATIOS["sd1"]
    document, _ = run(tmp_path, a=pair["a"], b=pair["b"], weights_alpha=text(weights), blocks="supermerger-2023")
    rows = {(row["part"], row["block"]): row for row in document["report"]}
    assert rows["time_embed", "OUT11"] == {
        "part": "time_embed", "block": "OUT11", "alpha": weights[25], "beta": 0.0, "tensors": 4
    }  # fmt: skip
    assert rows["position_ids", KEEP]["alpha"] is None
    assert sum(row["tensors"] for row in document["report"]) == len(read(pair["a"]))
    assert document["convention"] == "supermerger-2023"


def test_the_description_beside_a_travels_to_the_child(tmp_path):
    yaml = "model:\n  params:\n    parameterization: v\n"
    a = write(tmp_path / "a.safetensors", state(seed=1), yaml=yaml)
    b = write(tmp_path / "b.safetensors", state(seed=2))
    document, _ = run(tmp_path, a=a, b=b)
    assert (tmp_path / "out.yaml").read_text() == yaml
    assert any("predicts epsilon" in note for note in document["notices"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"alpha": 0.5, "weights_alpha": "GRAD_V"}, "both alpha and block weights"), ({"beta": 0.5}, "has no beta"),
     ({"c": "a.safetensors"}, "weighted_sum uses 2 models"), ({"b": None}, "b: a checkpoint is needed"),
     ({"out": "merged.ckpt"}, "merged checkpoints are .safetensors"), ({"method": "add_difference"}, "c: a checkpoint"),
     ({"b": "missing.safetensors"}, "no such file"), ({"adjust": "1,2,x"}, "not a list of numbers"),
     ({"adjust": "1,2,3,4,5,6,7,8,9"}, "at most 8"), ({"weights_alpha": "0.5,0.5"}, "2 block weights")],
)  # fmt: skip
def test_wrong_input_is_named_before_anything_is_written(tmp_path, pair, settings, message):
    before = set(tmp_path.iterdir())
    given = {"a": pair["a"], "b": pair["b"], "out": str(tmp_path / "out.safetensors"), **settings}
    with pytest.raises(UserError, match=message):
        run(tmp_path, **given)
    assert set(tmp_path.iterdir()) <= before | {tmp_path / "hashes.json"}


def test_a_model_is_never_its_own_result(tmp_path, pair):
    before = sha256(pair["a"])
    with pytest.raises(UserError, match="is one of the files that are read"):
        run(tmp_path, a=pair["a"], b=pair["b"], out=pair["a"])
    assert sha256(pair["a"]) == before


def test_stopping_leaves_nothing_behind(tmp_path, pair):
    token = CancelToken()
    settings = MergeSettings(a=pair["a"], b=pair["b"], out=str(tmp_path / "out.safetensors"))
    events = merge(settings, token, HashCache(tmp_path / "hashes.json"))
    next(event for event in events if isinstance(event, Phase) and event.name == "merging")
    assert any(path.name.startswith(".out.safetensors") for path in tmp_path.iterdir())
    token.stop_now()
    with pytest.raises(Cancelled):
        list(events)
    assert [path.name for path in tmp_path.iterdir()] == ["hashes.json"]


def test_progress_counts_bytes_up_to_the_whole(tmp_path, pair):
    _, events = run(tmp_path, a=pair["a"], b=pair["b"])
    phases = [event for event in events if isinstance(event, Phase) and event.name == "merging"]
    assert all(one.done <= other.done for one, other in itertools.pairwise(phases))
    assert phases[-1].done == phases[-1].total > 0


@pytest.mark.parametrize("of_old", [False, True])
@pytest.mark.parametrize("dtype", [None, "fp8_e4m3"])
def test_values_that_grow_beyond_the_precision_are_told(tmp_path, dtype, of_old, monkeypatch):
    """Also with the torch that the WebUI comes with, which does not look for the ends of 16-bit values."""
    if of_old:
        monkeypatch.setattr(compute, "_finds_ends_of_half", lambda: False)
    a, b = state(fill=1), state(fill=1)
    b[FIRST][0, 0, 0, 0] = 60000.0
    paths = {"a": write(tmp_path / "a.safetensors", a), "b": write(tmp_path / "b.safetensors", b)}
    document, events = run(tmp_path, **paths, alpha=2.0, dtype=dtype)
    assert document["not_finite"] == [FIRST]
    assert any("1 tensors have values that are infinite" in e.text for e in events if isinstance(e, Notice))
    assert run(tmp_path, **paths, alpha=0.5, dtype="fp32")[0]["not_finite"] == []
