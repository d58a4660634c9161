"""Tensors put into a loaded model as its loader would, and the old ones back bit for bit."""
from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from lib_sdtrain.errors import Cancelled, UserError
from lib_sdtrain.host.live_weights import VAE, LiveWeights, Loading, changes_text, places, same_bits

SIZES = {
    "model.diffusion_model.conv.weight": (2, 3, 1, 1), "model.diffusion_model.conv.bias": (2,),
    "model.diffusion_model.norm.weight": (4,), "model.diffusion_model.norm.bias": (4,),
    "cond_stage_model.transformer.token.weight": (5, 4), "cond_stage_model.attn.in_proj_weight": (12, 4),
    "cond_stage_model.attn.in_proj_bias": (12,), "cond_stage_model.attn.out_proj.weight": (4, 4),
    "cond_stage_model.attn.out_proj.bias": (4,), "first_stage_model.conv_in.weight": (2, 2),
    "first_stage_model.conv_in.bias": (2,),
}  # fmt: skip
CONV = "model.diffusion_model.conv.weight"


class Wrapped(nn.Module):
    """What the WebUI puts around a text encoder and an embedding."""

    def __init__(self, wrapped: nn.Module) -> None:
        super().__init__()
        self.wrapped = wrapped


def branch(**children: nn.Module) -> nn.Module:
    module = nn.Module()
    for name, child in children.items():
        module.add_module(name, child)
    return module


def model() -> nn.Module:
    text = branch(
        transformer=branch(token=Wrapped(nn.Embedding(5, 4))), attn=nn.MultiheadAttention(4, 2, batch_first=True)
    )
    unet = branch(conv=nn.Conv2d(3, 2, 1), norm=nn.GroupNorm(2, 4))
    vae = branch(conv_in=nn.Linear(2, 2))
    return branch(model=branch(diffusion_model=unet), cond_stage_model=Wrapped(text), first_stage_model=vae)


def tensors(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(size, generator=generator).to(dtype) for key, size in SIZES.items()}


def loaded(values: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> nn.Module:
    """A model with the values as the WebUI's loader leaves them."""
    made = model().to(dtype)
    where = places(made)
    with torch.no_grad():
        for key, value in values.items():
            owner, name = where[key]
            owner.get_parameter(name).copy_(value)
    return made


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def put(live: LiveWeights, made: nn.Module, new: dict[str, Tensor], old: dict[str, Tensor], **loading) -> None:
    live.put(made, new, new.__getitem__, old.get, Loading(**loading), lambda done, total: None)


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return all(same_bits(left[name], right[name]) for name in left)


def test_the_wrappers_names_are_left_out_and_an_attention_owns_its_output():
    made = model()
    found = places(made)
    assert set(found) == set(SIZES)
    attention = made.cond_stage_model.wrapped.attn
    assert found["cond_stage_model.attn.out_proj.bias"] == (attention, "out_proj.bias")


@pytest.mark.parametrize("live_dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_put_is_what_loading_gives_and_the_way_back_is_exact(live_dtype, stored):
    old, new = tensors(1, stored), tensors(2, stored)
    made = loaded(old, live_dtype)
    before, live = state(made), LiveWeights()
    put(live, made, new, old)
    assert equal(state(made), state(loaded(new, live_dtype)))
    assert not live.kept  # the file gives all of it back
    live.put_back(made, old.get, Loading())
    assert equal(state(made), before)
    assert not live.touched


def test_only_the_given_keys_are_touched():
    old, new = tensors(1), tensors(2)
    made = loaded(old)
    put(LiveWeights(), made, {CONV: new[CONV]}, old)
    assert equal(state(made), state(loaded({**old, CONV: new[CONV]})))


def test_bits_that_the_file_cannot_give_back_are_kept():
    old, new = tensors(1), tensors(2)
    made = loaded({**old, CONV: old[CONV] * 3})  # another extension was here
    before, live = state(made), LiveWeights()
    put(live, made, new, {key: value for key, value in old.items() if not key.startswith(VAE)})
    assert set(live.kept) == {CONV, "first_stage_model.conv_in.weight", "first_stage_model.conv_in.bias"}
    live.put_back(made, old.get, Loading())
    assert equal(state(made), before)


def test_the_original_is_remembered_once_however_often_it_is_changed():
    old = tensors(1)
    made = loaded({**old, CONV: old[CONV] * 3})
    before, live = state(made), LiveWeights()
    for seed in range(2, 52):
        put(live, made, tensors(seed), old)
    assert list(live.kept) == [CONV]
    live.put_back(made, old.get, Loading())
    assert equal(state(made), before)


def fp8(values: dict[str, Tensor], caches: bool) -> nn.Module:
    """As the WebUI stores weights in fp8: everything in fp16 first, then convolutions and linear layers."""
    made = loaded({key: value.half() for key, value in values.items()}, torch.float16)
    for module in (made.model.diffusion_model.conv, made.cond_stage_model.wrapped.attn.out_proj):
        if caches:
            module.fp16_weight, module.fp16_bias = module.weight.data.clone(), module.bias.data.clone()
        module.to(torch.float8_e4m3fn)
    return made


@pytest.mark.parametrize("caches", [True, False])
def test_fp8_storage_goes_through_fp16_and_its_copies_follow(caches):
    old, new = tensors(1), tensors(2)
    odd = torch.tensor(2**-4 * (1 + 2**-4) + 2**-20)  # fp16 makes a tie of it, which fp8 then rounds to even
    new[CONV][0, 0] = odd
    made, live = fp8(old, caches), LiveWeights()
    put(live, made, new, old, half_first=True)
    wanted = fp8(new, caches)
    assert equal(state(made), state(wanted))
    if caches:
        conv, other = made.model.diffusion_model.conv, wanted.model.diffusion_model.conv
        assert same_bits(conv.fp16_weight, other.fp16_weight)
        assert same_bits(conv.fp16_bias, other.fp16_bias)
    live.put_back(made, old.get, Loading(half_first=True))
    assert equal(state(made), state(fp8(old, caches)))


def test_fp8_copies_that_the_file_cannot_give_are_kept_too():
    old, new = tensors(1), tensors(2)
    made = fp8(old, caches=True)
    conv = made.model.diffusion_model.conv
    conv.fp16_weight = conv.fp16_weight * 2
    conv.weight.data = conv.fp16_weight.to(torch.float8_e4m3fn)
    before, cache, live = state(made), conv.fp16_weight.clone(), LiveWeights()
    put(live, made, new, old, half_first=True)
    live.put_back(made, old.get, Loading(half_first=True))
    assert equal(state(made), before)
    assert same_bits(conv.fp16_weight, cache)


def test_a_loras_changes_are_undone_first_and_do_not_come_back():
    old, new = tensors(1), tensors(2)
    made = loaded(old)
    before, conv = state(made), made.model.diffusion_model.conv
    backup = conv.weight.detach().clone()
    with torch.no_grad():
        conv.weight.add_(1)  # a LoRA is in the weights

    def cleanse(module: nn.Module) -> None:
        if module is conv:
            module.weight.copy_(backup)

    live = LiveWeights()
    put(live, made, {key: value for key, value in new.items() if key != CONV}, old, cleanse=cleanse)
    assert same_bits(conv.weight.detach(), old[CONV])  # the module was loaded for its bias; no LoRA stays in it
    assert not live.kept
    live.put_back(made, old.get, Loading(cleanse=cleanse))
    assert equal(state(made), before)


def test_the_vae_that_the_host_keeps_aside_is_the_checkpoints():
    old, new = tensors(1), tensors(2)
    other = {key: value for key, value in tensors(3).items() if key.startswith(VAE)}
    made = loaded({**old, **other})
    aside = {key.removeprefix(VAE): value.clone() for key, value in old.items() if key.startswith(VAE)}
    before, live = {name: value.clone() for name, value in aside.items()}, LiveWeights()
    put(live, made, new, old, vae_aside=aside)
    assert equal(state(made), state(loaded({**new, **other})))
    assert all(torch.equal(aside[name], new[VAE + name]) for name in aside)
    live.put_back(made, old.get, Loading(vae_aside=aside))
    assert equal(aside, before)


def test_another_vae_is_left_alone_where_the_host_has_lost_the_checkpoints():
    old, new = tensors(1), tensors(2)
    other = {key: value for key, value in tensors(3).items() if key.startswith(VAE)}
    made, live = loaded({**old, **other}), LiveWeights()
    before = state(made)
    put(live, made, new, old, vae_aside={})
    assert equal(state(made), state(loaded({**new, **other})))
    live.put_back(made, old.get, Loading(vae_aside={}))
    assert equal(state(made), before)


@pytest.mark.parametrize("fails_at", [0, 2])
def test_a_cancelled_change_can_be_undone(fails_at):
    old, new = tensors(1), tensors(2)
    made = loaded(old)
    before, live = state(made), LiveWeights()

    def tell(done: int, total: int) -> None:
        if done == fails_at:
            raise Cancelled

    with pytest.raises(Cancelled):
        live.put(made, new, new.__getitem__, old.get, Loading(), tell)
    live.put_back(made, old.get, Loading())
    assert equal(state(made), before)


def test_another_size_is_refused_before_the_tensor_is_touched():
    old = tensors(1)
    made = loaded(old)
    before = state(made)
    with pytest.raises(UserError, match="another size"):
        put(LiveWeights(), made, {CONV: torch.zeros(2, 4, 1, 1)}, old)
    assert equal(state(made), before)


def test_keys_that_the_model_lacks_are_passed_over():
    old = tensors(1)
    made, live = loaded(old), LiveWeights()
    put(live, made, {"model_ema.decay": torch.ones(1)}, old)
    assert not live.touched


def test_bits_are_compared_not_numbers():
    nan = torch.tensor([math.nan, 0.0])
    assert same_bits(nan, nan.clone())
    assert not same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert not same_bits(nan, nan.double())


def test_text_encoders_are_told_from_the_rest():
    assert changes_text(["conditioner.embedders.0.transformer.x"])
    assert changes_text([CONV, "cond_stage_model.x"])
    assert not changes_text([CONV, "first_stage_model.x"])
