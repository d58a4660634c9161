"""Pruning, casting, baking, changing the container."""
import json
import os
import shutil
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lib_sdtrain.errors import Cancelled, UserError
from lib_sdtrain.events import CancelToken, Finished, Notice, Phase, Saved, Started
from lib_sdtrain.model import space
from lib_sdtrain.model.build import load_model
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.model.convert import convert
from lib_sdtrain.model.hashes import model_digest, sha256
from lib_sdtrain.model.keys import ema_key
from lib_sdtrain.settings.convert import ConvertSettings
from tests.model.small_files import POSITION_IDS, SD1, SD2, SDXL, small_family, small_tensors, write_small, yaml_text

UNET, VAE, TEXT, EMA = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.", "model_ema."


@pytest.fixture(scope="module")
def tensors():
    return small_tensors(SD1, torch.float32, ema=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tensors):
    metadata = {"format": "pt", "modelspec.title": "Small", "modelspec.hash_sha256": "0x0"}
    return write_small(tmp_path_factory.mktemp("source") / "m.safetensors", tensors, metadata=metadata)


def run(source, out, token=None, **options):
    return list(convert(ConvertSettings(file=str(source), out=str(out), **options), token or CancelToken()))


def converted(source, out, **options):
    run(source, out, **options)
    return load_file(out)


def assert_same(found, expected):
    assert set(found) == set(expected)
    for key, tensor in expected.items():
        assert found[key].dtype == tensor.dtype, key
        assert torch.equal(found[key], tensor), key


def without(tensors, *prefixes):
    return {key: value for key, value in tensors.items() if not key.startswith(prefixes)}


def test_nothing_changes_unless_asked(tmp_path, checkpoint, tensors):
    out = tmp_path / "o.safetensors"
    events = run(checkpoint, out)
    assert_same(load_file(out), tensors)
    assert out.with_suffix(".yaml").read_text() == yaml_text()
    assert isinstance(events[0], Started)
    assert any(isinstance(event, Phase) and event.name == "writing" for event in events)
    saved, finished = events[-2:]
    assert isinstance(saved, Saved)
    assert isinstance(finished, Finished)
    assert finished.result["sha256"] == saved.sha256 == sha256(out)
    assert finished.result["bytes"] == out.stat().st_size


@pytest.mark.parametrize("name", ["fp16", "bf16", "fp8_e4m3"])
def test_a_cast_spares_positions_buffers_and_counters(tmp_path, checkpoint, tensors, name):
    wanted = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp8_e4m3": torch.float8_e4m3fn}[name]
    found = converted(checkpoint, tmp_path / "o.safetensors", dtype=name)
    spared = {POSITION_IDS, "alphas_cumprod", "model_ema.decay", "model_ema.num_updates"}
    for key, tensor in tensors.items():
        assert found[key].dtype == (tensor.dtype if key in spared else wanted), key
        assert torch.equal(found[key].float(), (tensor if key in spared else tensor.to(wanted)).float()), key


def test_large_tensors_are_cast_like_small_ones(tmp_path, tensors):
    key = f"{TEXT}transformer.text_model.embeddings.token_embedding.weight"
    large = torch.randn(9001, 64, generator=torch.Generator().manual_seed(1))
    path = write_small(tmp_path / "m.safetensors", tensors | {key: large})
    assert torch.equal(converted(path, tmp_path / "o.safetensors", dtype="fp16")[key], large.half())


def test_values_beyond_the_precision_are_reported(tmp_path, tensors):
    key = f"{UNET}out.2.bias"
    path = write_small(tmp_path / "m.safetensors", tensors | {key: torch.full((4,), 70000.0)})
    notices = [event for event in run(path, tmp_path / "o.safetensors", dtype="fp16") if isinstance(event, Notice)]
    assert len(notices) == 1
    assert key in notices[0].text
    assert not [e for e in run(path, tmp_path / "p.safetensors", dtype="bf16") if isinstance(e, Notice)]


def test_ema_is_dropped_or_used(tmp_path, checkpoint, tensors):
    assert_same(converted(checkpoint, tmp_path / "d.safetensors", ema="drop"), without(tensors, EMA))
    used = without(tensors, EMA)
    used |= {key: tensors[ema_key(key)] for key in used if key.startswith(UNET)}
    assert_same(converted(checkpoint, tmp_path / "u.safetensors", ema="use"), used)


def test_using_ema_that_is_not_there_is_a_mistake(tmp_path, tensors):
    path = write_small(tmp_path / "m.safetensors", without(tensors, EMA))
    with pytest.raises(UserError, match="no EMA"):
        run(path, tmp_path / "o.safetensors", ema="use")


def test_parts_are_left_out(tmp_path, checkpoint, tensors):
    found = converted(checkpoint, tmp_path / "o.safetensors", no_vae=True, no_text_encoder=True)
    assert_same(found, without(tensors, VAE, TEXT))


def vae_file(form, path, tensors):
    """The VAE of `tensors` as people have it."""
    bare = {key.removeprefix(VAE): value for key, value in tensors.items() if key.startswith(VAE)}
    if form == "bare .pt, nested":
        torch.save({"state_dict": bare | {"loss.logvar": torch.zeros(())}}, path.with_suffix(".pt"))
        return path.with_suffix(".pt")
    if form == "whole checkpoint":
        return write_small(path, tensors)
    if form == "prefixed":
        save_file({VAE + key: value for key, value in bare.items()}, path)
        return path
    source = write_small(path.with_name("whole.safetensors"), tensors)
    state = load_model(open_checkpoint(source), "cpu", torch.float32).vae.state_dict()
    if form == "diffusers, old names":
        for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            state = {key.replace(f"0.{new}.", f"0.{old}."): value for key, value in state.items()}
        assert any(".proj_attn." in key for key in state)
    save_file(state, path)
    return path


FORMS = ["bare .pt, nested", "whole checkpoint", "prefixed", "diffusers", "diffusers, old names"]


@pytest.mark.parametrize("form", FORMS)
def test_a_vae_in_any_form_is_baked_in_with_the_checkpoints_precision(tmp_path, tensors, form):
    other = small_tensors(SD1, torch.float32, seed=5)
    halved = {key: value.half() if value.is_floating_point() else value for key, value in without(tensors, EMA).items()}
    path = write_small(tmp_path / "m.safetensors", halved)
    file = vae_file(form, tmp_path / "v.safetensors", other)
    expected = halved | {key: value.half() for key, value in other.items() if key.startswith(VAE)}
    assert_same(converted(path, tmp_path / "o.safetensors", vae=str(file)), expected)


def test_a_vae_is_added_where_there_was_none(tmp_path, tensors):
    path = write_small(tmp_path / "m.safetensors", without(tensors, VAE))
    file = vae_file("prefixed", tmp_path / "v.safetensors", tensors)
    assert_same(converted(path, tmp_path / "o.safetensors", vae=str(file)), tensors)


def test_files_that_are_no_fitting_vae_are_named(tmp_path, checkpoint, tensors):
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(1, 1)}, tmp_path / "lora.safetensors")
    with pytest.raises(UserError, match="this is a LoRA, not a VAE"):
        run(checkpoint, tmp_path / "o.safetensors", vae=str(tmp_path / "lora.safetensors"))
    part = {key.removeprefix(VAE): value for key, value in tensors.items() if key.startswith(f"{VAE}encoder")}
    save_file(part, tmp_path / "half.safetensors")
    with pytest.raises(UserError, match=r"incomplete: first_stage_model\.decoder"):
        run(checkpoint, tmp_path / "o.safetensors", vae=str(tmp_path / "half.safetensors"))
    bare = write_small(tmp_path / "bare.safetensors", without(tensors, VAE))
    with pytest.raises(UserError, match="holds no VAE"):
        run(checkpoint, tmp_path / "o.safetensors", vae=str(bare))


def test_old_ckpt_files_get_todays_names_and_lose_what_is_no_weight(tmp_path, tensors):
    old = {key.replace("transformer.text_model.", "transformer."): value for key, value in tensors.items()}
    path = write_small(tmp_path / "m.ckpt", old)
    events = run(path, tmp_path / "o.safetensors")
    assert_same(load_file(tmp_path / "o.safetensors"), tensors)
    assert any("global_step" in event.text for event in events if isinstance(event, Notice))


def test_the_result_says_how_it_was_made_and_is_the_same_every_time(tmp_path, checkpoint):
    (tmp_path / "sub").mkdir()
    for out in (tmp_path / "a.safetensors", tmp_path / "sub" / "b.safetensors"):
        run(checkpoint, out, dtype="fp16", ema="drop")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "sub" / "b.safetensors").read_bytes()
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        metadata = file.metadata()
    ours = json.loads(metadata["sdtrain"])
    assert ours["kind"] == "convert"
    assert ours["settings"] == {"dtype": "fp16", "ema": "drop"}
    assert ours["parents"] == {"checkpoint": sha256(checkpoint)}
    assert metadata["modelspec.title"] == "Small"
    assert "modelspec.hash_sha256" not in metadata
    assert str(tmp_path) not in str(metadata)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"out": ""}, "out: a value is needed"),
        ({"file": None}, "file: a value is needed"),
        ({"no_vae": True, "vae": "x"}, "both left out and put in"),
        ({"out": "o.ckpt"}, "not written"),
        ({"file": "same.safetensors", "out": "./same.safetensors"}, "overwrite its source"),
        ({"vae": "same.safetensors", "out": "same.safetensors"}, "overwrite its source"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_read(tmp_path, monkeypatch, options, expected):
    monkeypatch.chdir(tmp_path)
    settings = ConvertSettings(**{"file": "missing.safetensors", "out": "o.safetensors", **options})
    with pytest.raises(UserError, match=expected):
        list(convert(settings, CancelToken()))
    assert list(tmp_path.iterdir()) == []


def test_all_mistakes_are_reported_at_once():
    with pytest.raises(UserError) as caught:
        list(convert(ConvertSettings(no_vae=True, vae="x"), CancelToken()))
    assert len(caught.value.problems) == 3


def test_a_folder_that_holds_something_is_not_overwritten(tmp_path, checkpoint):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="stands there already"):
        run(checkpoint, tmp_path / "o")


def test_a_lora_is_not_converted(tmp_path):
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(1, 1)}, tmp_path / "lora.safetensors")
    with pytest.raises(UserError, match="this is a LoRA, not a checkpoint"):
        run(tmp_path / "lora.safetensors", tmp_path / "o.safetensors")


@pytest.mark.parametrize("out", ["o.safetensors", "folder"])
def test_stopping_and_a_full_disk_leave_nothing(tmp_path, checkpoint, monkeypatch, out):
    token = CancelToken()
    events = convert(ConvertSettings(file=str(checkpoint), out=str(tmp_path / out)), token)
    while not (isinstance(event := next(events), Phase) and event.name.startswith("writing") and event.done > 3):
        pass
    token.stop_and_save()
    with pytest.raises(Cancelled):
        list(events)
    monkeypatch.setattr(space, "free_bytes", lambda folder: 10_000)
    with pytest.raises(UserError, match="10,000 free"):
        run(checkpoint, tmp_path / out)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_conversion_left_goes_with_a_later_one(tmp_path, checkpoint):
    left, fresh, others = (tmp_path / name for name in (".o.1-a.tmp", ".o.2-b.tmp", ".other.1-a.tmp"))
    yesterday = time.time() - 25 * 3600
    for folder in (left, fresh, others):
        (folder / "unet").mkdir(parents=True)
        (folder / "unet" / "half.safetensors").write_bytes(b"half")
    for folder in (left, others):
        os.utime(folder, (yesterday, yesterday))
    run(checkpoint, tmp_path / "o")
    assert {path.name for path in tmp_path.iterdir()} == {"o", fresh.name, others.name}


@pytest.mark.parametrize("name", [SD1, SDXL])
def test_into_a_folder_and_back_is_the_same(tmp_path, name):
    tensors = small_tensors(name, torch.float16)
    source = write_small(tmp_path / "m.safetensors", tensors, name)
    run(source, tmp_path / "folder")
    run(tmp_path / "folder", tmp_path / "back.safetensors")
    carried_by_folders = without(tensors, POSITION_IDS, "alphas_cumprod")
    assert_same(load_file(tmp_path / "back.safetensors"), carried_by_folders)
    assert open_checkpoint(tmp_path / "back.safetensors").family == open_checkpoint(source).family


@pytest.fixture(scope="module", params=[SD1, SD2, SDXL])
def folder(request, tmp_path_factory):
    """A checkpoint of each family and the diffusers folder made from it."""
    root = tmp_path_factory.mktemp("folder")
    source = write_small(root / "m.safetensors", small_tensors(request.param), request.param)
    events = run(source, root / "out")
    return source, root / "out", events[-1].result


def test_diffusers_loads_the_folder_with_the_same_weights(folder):
    from diffusers import AutoencoderKL, UNet2DConditionModel

    source, out, _ = folder
    model = load_model(open_checkpoint(source), "cpu", torch.float32)
    for part, cls in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        loaded = cls.from_pretrained(out / part)
        assert_same(loaded.state_dict(), getattr(model, part).state_dict())


def test_the_pipelines_text_encoders_give_what_the_family_uses(folder):
    """What a diffusers pipeline conditions on: the last hidden state, or SDXL's penultimate ones."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    source, out, _ = folder
    model = load_model(open_checkpoint(source), "cpu", torch.float32)
    index = json.loads((out / "model_index.json").read_text())
    ids = torch.randint(1, 500, (1, 77), generator=torch.Generator().manual_seed(0))
    for number, (config, ours) in enumerate(zip(model.family.text, model.text_encoders, strict=True)):
        name = f"text_encoder{'_2' if number else ''}"
        classes = {cls.__name__: cls for cls in (CLIPTextModel, CLIPTextModelWithProjection)}
        theirs = classes[index[name][1]].from_pretrained(out / name)(ids, output_hidden_states=True)
        expected = ours(ids, output_hidden_states=True).hidden_states[config.hidden_index]
        if config.final_norm:
            expected = ours.text_model.final_layer_norm(expected)
        found = theirs.hidden_states[-2] if model.family.is_sdxl else theirs.last_hidden_state
        assert torch.allclose(found, expected, atol=1e-6)


def test_the_folder_is_complete_and_known_by_its_digest(folder):
    source, out, result = folder
    assert result["sha256"] == model_digest(out)
    index = json.loads((out / "model_index.json").read_text())
    family = open_checkpoint(source).family
    assert index["_class_name"] == ("StableDiffusionXLPipeline" if family.is_sdxl else "StableDiffusionPipeline")
    for name, entry in index.items():
        if isinstance(entry, list) and entry[0]:
            assert any((out / name).iterdir()), name
    scheduler = json.loads((out / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["prediction_type"] == family.prediction_type
    assert not list(out.parent.glob(".*"))


def test_the_folders_tokenizer_reads_as_clip_does(folder):
    from transformers import CLIPTokenizer

    _, out, _ = folder
    tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer")
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]


def test_a_pipeline_draws_from_the_folder(tmp_path, tensors):
    from diffusers import StableDiffusionPipeline

    source = write_small(tmp_path / "m.safetensors", without(tensors, EMA))
    run(source, tmp_path / "out", dtype="fp16")
    shutil.rmtree(tmp_path / "out" / "tokenizer")  # the small text encoder does not know its words
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "out", torch_dtype=torch.float32, tokenizer=None)
    embeds = torch.zeros(1, 77, 64)
    picture = pipeline(
        prompt_embeds=embeds, negative_prompt_embeds=embeds, num_inference_steps=1, height=64, width=64,
        output_type="np",
    ).images  # fmt: skip
    assert picture.shape == (1, 64, 64, 3)


def test_a_folder_without_vae_and_an_incomplete_part(tmp_path, tensors):
    source = write_small(tmp_path / "m.safetensors", without(tensors, EMA))
    run(source, tmp_path / "out", no_vae=True)
    assert not (tmp_path / "out" / "vae").exists()
    assert json.loads((tmp_path / "out" / "model_index.json").read_text())["vae"] == [None, None]
    key = f"{VAE}quant_conv.bias"
    part = write_small(tmp_path / "p.safetensors", without(tensors, EMA, key))
    with pytest.raises(UserError, match=r"quant_conv\.bias is missing"):
        run(part, tmp_path / "other")


def test_a_folder_of_unknown_heads_asks_for_the_yaml(tmp_path, tensors):
    source = write_small(tmp_path / "m.safetensors", tensors)
    source.with_suffix(".yaml").unlink()
    with pytest.raises(UserError, match="attention heads"):
        run(source, tmp_path / "out")
    assert small_family().unet.heads is not None
