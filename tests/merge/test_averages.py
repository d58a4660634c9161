"""A moving average stays in the result only where it is that of the resulting weights."""
import pytest
import torch
from safetensors.torch import load_file

from lib_sdtrain.cli.main import main
from lib_sdtrain.model.keys import ema_key
from tests.merge.models import run, state, write
from tests.merge.test_lora import KOHYA, TEXT, rand
from tests.merge.test_merge_cases import with_ema

SAID = "A's moving average (EMA) is left out, because it is not that of the result: "


@pytest.fixture
def a(tmp_path):
    return write(tmp_path / "a.safetensors", with_ema(state(seed=1), 1))


def averaged(tmp_path, **settings):
    """Whether the result has an average, and what was said."""
    document, _ = run(tmp_path, **settings)
    from lib_sdtrain.model.tensorfile import open_tensors

    with open_tensors(document["out"]) as file:
        kept = any(key.startswith("model_ema.") for key in file.keys())  # noqa: SIM118 - not a dict
    notes = [note for note in document["notices"] if "average" in note or "only in A" in note]
    return kept, notes


def test_an_average_that_another_model_lacks_is_left_out(tmp_path, a):
    b = write(tmp_path / "b.safetensors", state(seed=2))
    assert averaged(tmp_path, a=a, b=b, alpha=1.0) == (False, [f"{SAID}b.safetensors has none"])
    assert averaged(tmp_path, a=a, b=b, alpha=0.5) == (False, [f"{SAID}b.safetensors has none"])
    kept, notes = averaged(tmp_path, a=a, b=b, alpha=0.0)  # nothing of B goes into the weights
    assert kept
    assert not any(SAID in note for note in notes)


def test_loras_and_adjusting_leave_the_average_behind(tmp_path, a):
    unet = write(tmp_path / "l.safetensors", {f"{KOHYA}.lora_down.weight": rand(2, 4),
                                              f"{KOHYA}.lora_up.weight": rand(4, 2)})
    name = "lora_te_" + TEXT.removeprefix("cond_stage_model.transformer.").removesuffix(".weight").replace(".", "_")
    text = write(tmp_path / "t.safetensors", {f"{name}.lora_down.weight": rand(2, 4),
                                              f"{name}.lora_up.weight": rand(4, 2)})
    baked = {"a": a, "method": "no_interpolation"}
    why = "the weights, and not their average"
    assert averaged(tmp_path, **baked, lora=[f"{unet}:1"]) == (False, [f"{SAID}LoRAs change {why}"])
    assert averaged(tmp_path, **baked, adjust="1") == (False, [f"{SAID}adjusting changes {why}"])
    assert averaged(tmp_path, **baked, lora=[f"{text}:1"]) == (True, [])


def test_loras_can_be_put_into_the_average(tmp_path, a, capsys):
    network = write(tmp_path / "l.safetensors", {f"{KOHYA}.lora_down.weight": rand(2, 4),
                                                 f"{KOHYA}.lora_up.weight": rand(4, 2)})
    results = {}
    for ema in ("use", "drop"):
        out = str(tmp_path / f"{ema}.safetensors")
        assert main(["lora-bake", a, f"{network}:1", "--ema", ema, "--out", out]) == 0
        assert "moving average" not in capsys.readouterr().err
        results[ema] = load_file(out)
    own = load_file(a)
    for key, tensor in results["use"].items():
        # what the LoRA adds is the same, whatever it is added to
        if key.startswith("model.diffusion_model."):
            added = results["drop"][key] - own[key]
            torch.testing.assert_close(tensor, own[ema_key(key)] + added, rtol=1e-3, atol=1e-2)
    assert results["use"].keys() == results["drop"].keys() == {key for key in own if not key.startswith("model_ema.")}


def test_an_average_that_all_have_is_merged(tmp_path, a):
    b = write(tmp_path / "b.safetensors", with_ema(state(seed=2), 2))
    assert averaged(tmp_path, a=a, b=b, alpha=0.5) == (True, [])


@pytest.mark.parametrize(("given", "block"), [
    ({"weights_alpha": ",".join(["0.5"] * 13 + ["0.25"] + ["0.5"] * 12)}, "M00"),
    ({"weights_alpha": ",".join(["0"] + ["1"] * 25)}, "IN00"),
    ({"alpha": 0.5, "elements": "OUT04:attn2.to_k:1"}, "OUT04"),
    ({"alpha": 0.5, "elements": "IN00:conv:0"}, "IN00"),
])  # fmt: skip
def test_an_average_that_is_merged_in_another_way_is_left_out(tmp_path, a, given, block):
    b = write(tmp_path / "b.safetensors", with_ema(state(seed=2), 2))
    kept, [note] = averaged(tmp_path, a=a, b=b, **given)
    assert not kept
    assert note == f"{SAID}averages are merged with the weight of BASE, and {block} or a layer in it has another"


def test_weights_that_a_method_does_not_use_do_not_count(tmp_path, a):
    b = write(tmp_path / "b.safetensors", with_ema(state(seed=2), 2))
    weights = ",".join(["0"] + ["1"] * 25)
    assert averaged(tmp_path, a=a, method="no_interpolation", weights_alpha=weights) == (True, [])
    whole = {"weights_alpha": ",".join(["0.5"] * 26)}
    assert averaged(tmp_path, a=a, b=b, **whole) == (True, [])
