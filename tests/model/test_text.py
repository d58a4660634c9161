"""Hidden states and pooled outputs, against transformers' own forward pass and open_clip's layers written by hand."""
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.build import empty_module, fill, text_config
from lib_sdtrain.model.family import PUBLISHED, SD1, SD2, SDXL
from lib_sdtrain.model.keys import text_rows
from lib_sdtrain.model.text import encode, first_end, hidden_index
from lib_sdtrain.model.tokenizer import EOS_ID, Tokenizer
from tests.model.small import file_shape

LAYERS = 4


def small(config, **changes):
    return replace(config, width=64, layers=LAYERS, intermediate=128, **changes)


def made(config):
    """An encoder with random weights, and the same weights under the file's keys."""
    part, texts = "text_encoder", (config,)
    module = empty_module(replace(PUBLISHED[SD1], text=texts), part)
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.randn(p.shape, generator=generator) * 0.2 for name, p in module.named_parameters()}
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    fill(module, state)
    return module.eval(), {row.key: row.to_file(state, file_shape(row, shapes)) for row in text_rows(config)}


def ids_of(*texts, style="transformers"):
    tokenizer = Tokenizer(style)
    return torch.tensor([tokenizer.frame(tokenizer.encode(text)) for text in texts])


IDS = ("a photo of a cat", "two cats, one of them asleep on a very long sofa")


@torch.no_grad()
@pytest.mark.parametrize("skip", [1, 2, 3, LAYERS])
def test_sd1_takes_the_hidden_state_of_clip_skip_and_norms_it(skip):
    config = small(PUBLISHED[SD1].text[0])
    model, _ = made(config)
    ids = ids_of(*IDS)
    outputs = model(ids, output_hidden_states=True)
    expected = model.text_model.final_layer_norm(outputs.hidden_states[-skip])
    assert torch.allclose(encode(model, config, ids, skip).hidden, expected, rtol=0, atol=1e-6)
    if skip == 1:
        assert torch.allclose(expected, outputs.last_hidden_state)


@torch.no_grad()
def test_sdxls_first_encoder_takes_its_own_layer_without_norm_whatever_the_clip_skip():
    config = small(PUBLISHED[SDXL].text[0], hidden_index=3)
    model, _ = made(config)
    ids = ids_of(*IDS)
    expected = model(ids, output_hidden_states=True).hidden_states[3]
    for skip in (1, 2):
        encoded = encode(model, config, ids, skip)
        assert torch.allclose(encoded.hidden, expected, rtol=0, atol=1e-6)
        assert encoded.pooled is None


def open_clip_states(tensors, prefix, ids, heads):
    """open_clip's text transformer on the file's own tensors: the states before and after every block."""
    get = lambda name: tensors[prefix + name]  # noqa: E731
    x = F.embedding(ids, get("token_embedding.weight")) + get("positional_embedding")
    mask = torch.full((77, 77), float("-inf")).triu(1)
    states = [x]
    for number in range(LAYERS):
        block = f"transformer.resblocks.{number}."
        attention = nn.MultiheadAttention(x.shape[-1], heads, batch_first=True)
        attention.load_state_dict({
            name: get(f"{block}attn.{name}")
            for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
        })
        normed = F.layer_norm(x, x.shape[-1:], get(f"{block}ln_1.weight"), get(f"{block}ln_1.bias"))
        x = x + attention(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        normed = F.layer_norm(x, x.shape[-1:], get(f"{block}ln_2.weight"), get(f"{block}ln_2.bias"))
        inner = F.gelu(F.linear(normed, get(f"{block}mlp.c_fc.weight"), get(f"{block}mlp.c_fc.bias")))
        x = x + F.linear(inner, get(f"{block}mlp.c_proj.weight"), get(f"{block}mlp.c_proj.bias"))
        states.append(x)
    return states


def last_norm(tensors, prefix, x):
    return F.layer_norm(x, x.shape[-1:], tensors[f"{prefix}ln_final.weight"], tensors[f"{prefix}ln_final.bias"])


def close(one, other):
    return torch.allclose(one, other, rtol=0, atol=2e-5 * other.std().item())


@torch.no_grad()
def test_sd2_takes_the_penultimate_state_of_open_clip_and_norms_it():
    config = small(PUBLISHED[SD2].text[0])
    model, tensors = made(config)
    ids = ids_of(*IDS, style="open_clip")
    states = open_clip_states(tensors, config.prefix, ids, config.heads)
    for skip in (1, 2, 3):
        assert close(encode(model, config, ids, skip).hidden, last_norm(tensors, config.prefix, states[-2]))


@torch.no_grad()
def test_sdxls_second_encoder_gives_the_penultimate_state_and_projects_the_first_end():
    config = small(PUBLISHED[SDXL].text[1], projection=48)
    model, tensors = made(config)
    ids = ids_of(*IDS, style="open_clip")
    states = open_clip_states(tensors, config.prefix, ids, config.heads)
    ends = last_norm(tensors, config.prefix, states[-1])[torch.arange(2), ids.argmax(dim=-1)]
    encoded = encode(model, config, ids)
    assert close(encoded.hidden, states[-2])
    assert encoded.pooled.shape == (2, 48)
    assert close(encoded.pooled, ends @ tensors[f"{config.prefix}text_projection"])


def test_the_first_end_counts_and_the_last_place_where_there_is_none():
    assert first_end(torch.tensor([[5, EOS_ID, EOS_ID, 0], [EOS_ID, 1, 2, 3], [1, 2, 3, 4]])).tolist() == [1, 0, 3]


def test_layers_that_nothing_needs_are_not_computed():
    config = small(PUBLISHED[SD1].text[0])
    model, _ = made(config)
    ran = []
    for number, layer in enumerate(model.text_model.encoder.layers):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    encode(model, config, ids_of("a cat"), clip_skip=3)
    assert ran == [0, 1]


def test_the_published_layers_are_those_of_the_webui():
    names = {(name, index): config for name in (SD1, SD2, SDXL) for index, config in enumerate(PUBLISHED[name].text)}
    found = {key: hidden_index(config, 2, config.layers) for key, config in names.items()}
    assert found == {(SD1, 0): 11, (SD2, 0): 23, (SDXL, 0): 11, (SDXL, 1): 31}
    assert hidden_index(PUBLISHED[SD1].text[0], 1, 12) == 12
    assert text_config(PUBLISHED[SDXL].text[1])["num_attention_heads"] == 20


def test_more_clip_skip_than_layers_is_refused():
    config = small(PUBLISHED[SD1].text[0])
    assert hidden_index(config, 5, LAYERS) == 0
    with pytest.raises(UserError, match="clip skip 6 is too much for 4 layers; at most 5"):
        hidden_index(config, 6, LAYERS)


def test_gradient_checkpointing_gives_the_same_gradients():
    config = small(PUBLISHED[SD1].text[0])
    gradients = []
    for enabled in (False, True):
        model, _ = made(config)
        model.requires_grad_(True).train()
        if enabled:
            model.gradient_checkpointing_enable()
        encode(model, config, ids_of(*IDS)).hidden.square().mean().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) > LAYERS
    assert all(torch.equal(plain, again) for plain, again in zip(*gradients, strict=True))
