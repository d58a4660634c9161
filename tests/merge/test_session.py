"""A merge that stays open: the same tensors as the file, and only what changed after a change."""
import pytest
import torch

from lib_sdtrain.errors import UserError
from lib_sdtrain.merge.session import MergeSession
from lib_sdtrain.settings.merge import MergeSettings
from tests.merge.models import UNET, read, run, same, state, write

WEIGHTS = [round(0.1 + 0.02 * n, 2) for n in range(26)]
NAMES = ["BASE", *(f"IN{n:02d}" for n in range(12)), "M00", *(f"OUT{n:02d}" for n in range(12))]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    return {x: write(folder / f"{x}.safetensors", state(seed=n)) for n, x in enumerate("ab", start=1)}


def settings(pair, tmp_path, weights=WEIGHTS, **more):
    out = str(tmp_path / "out.safetensors")
    return MergeSettings(**pair, out=out, weights_alpha=",".join(map(str, weights)), **more)


LIVE = [{}, {"method": "cosine_a"}, {"dtype": "bf16"}, {"arithmetic": "fp16", "adjust": "1,2"}]


@pytest.mark.parametrize("more", LIVE)
def test_live_is_saved(tmp_path, pair, more):
    wanted = settings(pair, tmp_path, **more)
    with MergeSession(wanted) as session:
        live = {key: tensor.clone() for key, tensor in session.tensors()}
    document, _ = run(tmp_path, **pair, weights_alpha=wanted.weights_alpha, **more)
    assert same(live, read(document["out"]))


@pytest.mark.parametrize(
    ("block", "part"),
    [("IN04", "input_blocks.4."), ("M00", "middle_block."), ("OUT11", ("output_blocks.11.", "out.")),
     ("IN00", ("input_blocks.0.", "time_embed."))],
)  # fmt: skip
def test_moving_one_slider_computes_only_its_block(tmp_path, pair, block, part):
    weights = list(WEIGHTS)
    weights[NAMES.index(block)] = 0.99
    with MergeSession(settings(pair, tmp_path)) as session:
        before = {key: tensor.clone() for key, tensor in session.tensors()}
        keys = session.update(settings(pair, tmp_path, weights))
        parts = part if isinstance(part, tuple) else (part,)
        assert set(keys) == {key for key in before if key.startswith(tuple(UNET + name for name in parts))}
        live = before | {key: tensor.clone() for key, tensor in session.tensors(keys)}
    with MergeSession(settings(pair, tmp_path, weights)) as fresh:
        assert same(live, dict(fresh.tensors()))


def test_base_changes_the_text_encoder_and_the_vae_only(tmp_path, pair):
    with MergeSession(settings(pair, tmp_path)) as session:
        keys = session.update(settings(pair, tmp_path, [0.9, *WEIGHTS[1:]]))
    assert {key.split(".")[0] for key in keys} == {"cond_stage_model", "first_stage_model"}


def test_the_same_settings_change_nothing_and_another_method_everything_merged(tmp_path, pair):
    with MergeSession(settings(pair, tmp_path)) as session:
        assert session.update(settings(pair, tmp_path)) == []
        merged = session.plan.merged
        assert set(session.update(settings(pair, tmp_path, method="slerp"))) == set(merged)
        assert set(session.update(settings(pair, tmp_path, arithmetic="fp16"))) == set(merged)


def test_a_changed_convention_changes_the_disputed_tensors_only(tmp_path, pair):
    with MergeSession(settings(pair, tmp_path)) as session:
        keys = session.update(settings(pair, tmp_path, blocks="sd-mecha"))
    assert keys
    assert all(key.startswith(UNET + "time_embed.") for key in keys)


def test_wrong_settings_leave_the_open_merge_as_it_was(tmp_path, pair):
    with MergeSession(settings(pair, tmp_path)) as session:
        key = UNET + "middle_block.0.in_layers.2.weight"
        before = session.tensor(key).clone()
        with pytest.raises(UserError):
            session.update(settings(pair, tmp_path, [1.0] * 25))
        assert torch.equal(session.tensor(key), before)


def test_tensors_that_are_copied_cost_no_arithmetic(tmp_path, pair):
    zeros = [0.0] * 26
    zeros[NAMES.index("M00")] = 1.0
    with MergeSession(settings(pair, tmp_path, zeros)) as session:
        assert session.plan.merged == []
        roles = {step.sources[0].role for key, step in session.plan.steps.items() if "middle_block" in key}
    assert roles == {"b"}
