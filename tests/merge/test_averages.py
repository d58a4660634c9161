"""A moving average stays in the result only where it is that of the resulting weights."""
import pytest

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


def test_an_average_that_all_have_is_merged(tmp_path, a):
    b = write(tmp_path / "b.safetensors", with_ema(state(seed=2), 2))
    assert averaged(tmp_path, a=a, b=b, alpha=0.5) == (True, [])
