"""What fuzzing begins with: small valid inputs of every target, and what was found in `corpus/`."""
from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import torch
import yaml
from PIL import Image
from safetensors.torch import save

from lib_sdtrain.model.family import PUBLISHED, SD1
from lib_sdtrain.model.ldm_yaml import describe
from lib_sdtrain.settings.layers import to_plain
from lib_sdtrain.settings.run import RunSettings

CORPUS = Path(__file__).parent / "corpus"
INFOTEXT = """a (red:1.2) cat, <lora:x:0.5>
Negative prompt: bad
Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x512, Model hash: 0123456789, \
Clip skip: 2, ENSD: 31337, Denoising strength: 0.5, Hires upscale: 2, Hires steps: 5, Hires upscaler: Latent, \
Lora hashes: "x: 0123", Version: v1.10.1"""
RECIPES = (
    '"sdtrain": {"method": "weighted_sum"}, "type": "webui-merge"}',
    '"type": "webui", "primary_model_hash": "ab", "secondary_model_hash": "cd", "interp_method": "Weighted sum"}',
    '"type": "sd-webui-supermerger", "weights_alpha": "0.1,0.2", "base_alpha": "0.5", "mode": "Weight sum"}',
)
LOG = (
    '{"type": "started", "total": 9, "step": 0, "time": 1.5}', '{"type": "step", "step": 1, "loss": 0.5, "time": 2}',
    '{"type": "preview", "step": 1, "index": 0, "file": "samples/a.png", "infotext": "x"}',
    '{"type": "validation", "step": 1, "loss": 0.25}', '{"type": "saved", "file": "a", "kind": "checkpoint"}',
    '{"type": "notice", "text": "x", "where": "y"}', '{"type": "failed", "problems": ["x"]}',
    '{"type": "finished", "result": {"steps": 9}}',
)
PROMPTS = (
    "a [cat:dog:0.5] (and:1.3) [fox|owl] \\(paren\\)", "x AND y :0.7 AND [a:b:3]", "<lora:a:1:te=0.5> # note\nfoo",
    "[[a:0.2]::0.7]((b))", "BREAK a BREAK",
)


def seeds_of(name: str) -> list[bytes]:
    """Usual inputs of a target, then those of its corpus."""
    found = sorted((CORPUS / name).glob("*")) if (CORPUS / name).is_dir() else []
    return [*_USUAL[name](), *(path.read_bytes() for path in found)]


def _texts(*texts: str) -> list[bytes]:
    return [text.encode() for text in texts]


def _safetensors() -> list[bytes]:
    tensors = {"a": torch.zeros(2, 2), "b": torch.zeros(0, dtype=torch.float16), "c": torch.ones((), dtype=torch.int64)}
    return [save(tensors, {"format": "pt", "sd_merge_recipe": json.dumps({"type": "webui"})}), save({}), b"", b"\0" * 8]


def _torch_files() -> list[bytes]:
    found = []
    for zipped in (True, False):
        file = io.BytesIO()
        torch.save({"state_dict": {"a": torch.zeros(2, 2)}, "step": 3}, file, _use_new_zipfile_serialization=zipped)
        found.append(file.getvalue())
    return [*found, pickle.dumps(print), pickle.dumps({"a": [1, (2,)]}, protocol=2)]


def _pictures() -> list[bytes]:
    found = []
    for format_name, mode in (("PNG", "RGBA"), ("JPEG", "L"), ("GIF", "P"), ("BMP", "RGB"), ("TIFF", "I;16"),
                              ("WEBP", "RGB"), ("PNG", "1")):
        file = io.BytesIO()
        Image.new(mode, (5, 4)).save(file, format_name)
        found.append(file.getvalue())
    return [*found, b'<svg xmlns="http://www.w3.org/2000/svg"/>', b""]


def _settings() -> list[bytes]:
    changed = to_plain(RunSettings())
    return _texts(
        yaml.safe_dump(changed), "train: {length: 30 epochs, learning_rate: 1e-6}\ndata: {concepts: [{name: a}]}",
        "data.concepts.0.weight: 3", "a: &x [*x]", "!!python/object/apply:os.system [ls]", "{}", "1",
    )


_USUAL = {
    "safetensors": _safetensors,
    "torch_file": _torch_files,
    "prompt": lambda: _texts(*PROMPTS),
    "infotext": lambda: _texts(INFOTEXT, "", "Steps: 1", f"{INFOTEXT}\n=====\n{INFOTEXT}"),
    "requests": lambda: _texts(
        json.dumps({"prompt": "a", "steps": 3, "override_settings": {"CLIP_stop_at_last_layers": 2}}), "[]",
        '{"infotext": "a\\nSteps: 3"}\n{"seed": -1}', '{"sampler_name": "DPM++ 2M Karras", "enable_hr": true}',
    ),
    "settings": _settings,
    "arb": lambda: _texts(
        "base_res: [512, 512]\nmax_size: [768, 512]\ndivisible: 64\nmax_ar_error: 4\nmin_dim: 256\ndim_limit: 1024",
    ),
    "multiply": lambda: _texts("2.5", "multiply: 3\nflip_p: 0.5", "nan", "1e999", ""),
    "recipe": lambda: _texts(*RECIPES),
    "weights": lambda: _texts(",".join(["0.5"] * 26), "MBW", "OUT00-OUT11:attn:0.3", "R(0,1)," * 25, "GRAD_V"),
    "description": lambda: [describe(PUBLISHED[SD1]).encode()],
    "picture": _pictures,
    "metadata": lambda: _texts(
        '{"a.png": {"caption": "x", "tags": "a, b"}, "b": "y"}', '[{"file_name": "a.png", "text": "x"}]',
        '{"image": "a.png", "caption": "x"}\n{"image": "b", "tags": ["a"]}\n', "file,caption,score\na.png,x,1\n",
    ),
    "log": lambda: _texts("\n".join(LOG) + "\n"),
}
