"""Averages that other trainers left in their checkpoints: naifu's list without names, scal-sdt's second state dict."""
from __future__ import annotations

import hashlib

import pytest
import torch

from lib_sdtrain.cli.main import main
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken
from lib_sdtrain.model.build import empty_module
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.model.convert import convert
from lib_sdtrain.model.ema_forms import ORDERS, in_order
from lib_sdtrain.model.family import PUBLISHED
from lib_sdtrain.model.inspection import inspect
from lib_sdtrain.model.keys import ema_key, part_rows, unet_rows
from lib_sdtrain.settings.convert import ConvertSettings
from tests.model.averages import average_of, lightning, module_names, names_of, old_order, shadow
from tests.model.small_files import SD1, SD2, SDXL, small_family, small_tensors, yaml_text

# SHA-256 of the names that UNet2DConditionModel.named_parameters() gives in diffusers 0.9.0 for SD1 and for SD2, one a
# line: written down once from that version itself.
DIFFUSERS_0_9 = "8aa0df4bad61cd38d72f3da03c15893c4a0c04f385ad078b8427c8d8ca44ed40"
# The beginning of that list, by hand from the source of 0.9.0: attentions before resnets, the feed-forward layers
# between the two attentions, the norms last.
BEGINNING = """
conv_in.weight conv_in.bias
time_embedding.linear_1.weight time_embedding.linear_1.bias
time_embedding.linear_2.weight time_embedding.linear_2.bias
0.attentions.0.norm.weight 0.attentions.0.norm.bias 0.attentions.0.proj_in.weight 0.attentions.0.proj_in.bias
0.attentions.0.t.attn1.to_q.weight 0.attentions.0.t.attn1.to_k.weight 0.attentions.0.t.attn1.to_v.weight
0.attentions.0.t.attn1.to_out.0.weight 0.attentions.0.t.attn1.to_out.0.bias
0.attentions.0.t.ff.net.0.proj.weight 0.attentions.0.t.ff.net.0.proj.bias
0.attentions.0.t.ff.net.2.weight 0.attentions.0.t.ff.net.2.bias
0.attentions.0.t.attn2.to_q.weight 0.attentions.0.t.attn2.to_k.weight 0.attentions.0.t.attn2.to_v.weight
0.attentions.0.t.attn2.to_out.0.weight 0.attentions.0.t.attn2.to_out.0.bias
0.attentions.0.t.norm1.weight 0.attentions.0.t.norm1.bias 0.attentions.0.t.norm2.weight 0.attentions.0.t.norm2.bias
0.attentions.0.t.norm3.weight 0.attentions.0.t.norm3.bias
0.attentions.0.proj_out.weight 0.attentions.0.proj_out.bias 0.attentions.1.norm.weight
""".replace(".t.", ".transformer_blocks.0.").split()
BEGINNING = [f"down_blocks.{name}" if name.startswith("0.") else name for name in BEGINNING]


@pytest.mark.parametrize("family", [SD1, SD2])
def test_the_early_order_is_that_of_diffusers_0_9(family):
    names = [row.names[0] for row in in_order(unet_rows(PUBLISHED[family].unet), ORDERS[0])]
    assert len(names) == 686
    assert names[: len(BEGINNING)] == BEGINNING
    assert hashlib.sha256("\n".join(names).encode()).hexdigest() == DIFFUSERS_0_9
    middle, up = names.index("mid_block.attentions.0.norm.weight"), names.index("up_blocks.0.resnets.0.norm1.weight")
    assert up < middle < names.index("mid_block.resnets.0.norm1.weight") < names.index("conv_norm_out.weight")
    assert names == names_of(old_order(empty_module(PUBLISHED[family], "unet")))


@pytest.mark.parametrize("family", [SD1, SD2, SDXL])
def test_the_later_order_is_that_of_the_installed_diffusers(family):
    names = [row.names[0] for row in in_order(unet_rows(PUBLISHED[family].unet), ORDERS[1])]
    assert names == names_of(empty_module(PUBLISHED[family], "unet"))


def save(path, document, family=SD1):
    torch.save(document, path)
    path.with_suffix(".yaml").write_text(yaml_text(family))
    return path


def converted(source, out, **changes):
    list(convert(ConvertSettings(file=str(source), out=str(out), **changes), CancelToken()))
    found = open_checkpoint(out)
    return {key: found.tensor(key).clone() for key in found.keys()}  # noqa: SIM118 - not a dict


def assert_average(path, tensors, tmp_path, updates=41):
    checkpoint = open_checkpoint(path)
    assert checkpoint.parts == {"unet": True, "text_encoder": True, "vae": True, "ema": True}
    assert inspect(path)["parts"]["ema"]
    average = average_of(tensors)
    for key, value in average.items():
        assert torch.equal(checkpoint.tensor(ema_key(key)), value), key
    assert int(checkpoint.tensor("model_ema.num_updates")) == updates
    assert float(checkpoint.tensor("model_ema.decay")) == pytest.approx(0.995)
    used = converted(path, tmp_path / "used.safetensors", ema="use")
    kept = converted(path, tmp_path / "kept.safetensors")
    dropped = converted(path, tmp_path / "dropped.safetensors", ema="drop")
    for key, value in average.items():
        assert torch.equal(used[key], value)
        assert torch.equal(kept[key], tensors[key])
        assert torch.equal(kept[ema_key(key)], value)
        assert torch.equal(dropped[key], tensors[key])
    assert used.keys() == dropped.keys() == {key for key in kept if not key.startswith("model_ema.")}
    assert not any("shadow" in key or "unet_ema" in key for key in kept)


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("holder", ["model_ema", "ema"])
def test_naifus_list_beside_ldms_names(tmp_path, early, holder):
    tensors = small_tensors()
    path = save(tmp_path / "a.ckpt", lightning(tensors, **{holder: shadow(tensors, small_family(), early)}))
    assert_average(path, tensors, tmp_path)


@pytest.mark.parametrize("family", [SD1, SD2])
def test_naifus_own_checkpoint(tmp_path, family):
    """Lightning's file of diffusers' modules, with torch_ema's state beside it."""
    tensors = small_tensors(family)
    state = lightning(module_names(tensors, small_family(family)), model_ema=shadow(tensors, small_family(family)))
    path = save(tmp_path / "a.ckpt", state, family)
    assert_average(path, tensors, tmp_path)
    checkpoint = open_checkpoint(path)
    named = {row.key for rows in part_rows(small_family(family)).values() for row in rows}
    for key in named:
        assert torch.equal(checkpoint.tensor(key), tensors[key]), key
    assert {key for key in checkpoint.file_keys if not key.startswith("model_ema.")} == named
    assert checkpoint.family == small_family(family) or checkpoint.family.prediction_type == "v_prediction"


def scal_sdt(tensors, values):
    unet = {row.names[0]: values[row.key] for row in unet_rows(small_family().unet)}
    return lightning({**tensors, "unet_ema": {"decay": 0.995, "num_updates": 41, "state_dict": unet}})


def test_scal_sdts_second_state_dict(tmp_path):
    tensors = small_tensors()
    path = save(tmp_path / "a.ckpt", scal_sdt(tensors, average_of(tensors)))
    assert_average(path, tensors, tmp_path)
    assert open_checkpoint(path).tensors.notes[-1] == "its moving average is read from unet_ema"


def test_an_average_that_is_the_weights_once_more_is_told(tmp_path):
    """scal-sdt takes the state dict while the average is in the weights' place, without a copy, and saves it after."""
    tensors = small_tensors()
    path = save(tmp_path / "a.ckpt", scal_sdt(tensors, tensors))
    checkpoint = open_checkpoint(path)
    assert checkpoint.tensors.notes[-1] == (
        "its moving average is read from unet_ema; it is the weights once more, which the program saved twice")
    assert any("once more" in note for note in inspect(path)["notes"])


def spoilt(tensors, change):
    state = shadow(tensors, small_family())
    change(state)
    return lightning(tensors, model_ema=state)


@pytest.mark.parametrize(("change", "message"), [
    (lambda state: state["shadow_params"].pop(), r"holds \d+ tensors, its UNet has \d+"),
    (lambda state: state["shadow_params"].append(torch.ones(3)), r"holds \d+ tensors, its UNet has \d+"),
    (lambda state: state["shadow_params"].reverse(), "have other shapes than its UNet's"),
    (lambda state: state.update(num_updates=-1), "says decay 0.995, num_updates -1"),
    (lambda state: state.update(num_updates=10**30), "num_updates 1000"),
    (lambda state: state.update(decay=float("nan")), "says decay nan"),
])
def test_a_list_that_does_not_fit_is_one_clear_mistake(tmp_path, change, message, capsys):
    path = save(tmp_path / "a.ckpt", spoilt(small_tensors(), change))
    with pytest.raises(UserError, match=message) as caught:
        open_checkpoint(path)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].where == str(path)
    out = tmp_path / "o.safetensors"
    assert main(["convert", str(path), "--out", str(out), "--ema", "use"]) == 2
    assert not out.exists()
    assert "a.ckpt" in capsys.readouterr().err


def test_names_that_do_not_fit_are_one_clear_mistake(tmp_path):
    tensors = small_tensors()
    for change, message in (
        (lambda state: state.pop("conv_in.weight"), "has no conv_in.weight"),
        (lambda state: state.update({"conv_in.bias": torch.ones(5)}), r"conv_in.bias of its .* is \(5,\), the weight"),
    ):
        document = scal_sdt(tensors, average_of(tensors))
        change(document["state_dict"]["unet_ema"]["state_dict"])
        with pytest.raises(UserError, match=message):
            open_checkpoint(save(tmp_path / "a.ckpt", document))


@pytest.mark.parametrize(("change", "message"), [
    (lambda state: state.pop("unet.down_blocks.0.resnets.0.norm1.weight"), "resnets.0.norm1.weight is missing"),
    (lambda state: state.pop("unet.conv_out.weight"), "conv_out.weight is missing"),
    (lambda state: state.pop("vae.quant_conv.bias"), "vae.quant_conv.bias is missing"),
    (lambda state: state.update({"unet.down_blocks.99999999999.x": torch.ones(2)}), "is missing"),
    (lambda state: state.update({"unet.down_blocks.0.resnets.99999999999.x": torch.ones(2)}), "is missing"),
    (lambda state: state.update({"unet.lora.up": torch.ones(2, 2)}), "unet.lora.up belongs to no part"),
])
def test_modules_that_are_incomplete_or_strange_are_a_clear_mistake(tmp_path, change, message):
    state = module_names(small_tensors(), small_family())
    change(state)
    with pytest.raises(UserError, match=message):
        open_checkpoint(save(tmp_path / "a.ckpt", lightning(state)))


def test_numbers_may_be_absent(tmp_path):
    """torch_ema without a count of updates has None there."""
    tensors = small_tensors()
    path = save(tmp_path / "a.ckpt", spoilt(tensors, lambda state: state.update(num_updates=None)))
    assert "model_ema.num_updates" not in open_checkpoint(path).file_keys
    assert open_checkpoint(path).parts["ema"]
