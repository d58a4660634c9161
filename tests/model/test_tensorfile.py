"""Reading model files, against the safetensors library and torch.save."""
import json
from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from lib_sdtrain.errors import UserError
from lib_sdtrain.model.tensorfile import open_tensors

DTYPES = [
    torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
]  # fmt: skip


def bits(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def sample_tensors(dtypes=DTYPES):
    generator = torch.Generator().manual_seed(0)
    tensors = OrderedDict((f"k.{d}", (torch.randn(3, 5, generator=generator) * 9).to(d)) for d in dtypes)
    tensors["scalar"] = torch.tensor(3.5)
    tensors["empty"] = torch.zeros(0, 4, dtype=torch.float16)
    return tensors


def assert_holds(path, expected):
    with open_tensors(path) as found:
        assert set(found.keys()) == set(expected)
        for key, tensor in expected.items():
            assert found.dtype(key) == tensor.dtype
            assert found.shape(key) == tuple(tensor.shape)
            assert bits(found.tensor(key)) == bits(tensor)
            assert bytes(found.raw(key)) == bits(tensor)
            assert found.nbytes(key) == len(bits(tensor))


def refusal(path):
    with pytest.raises(UserError) as caught:
        open_tensors(path)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].where.startswith(str(path))
    return str(caught.value)


def write_header(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_reads_every_number_format_the_library_writes(tmp_path):
    tensors = sample_tensors()
    save_file(dict(tensors), tmp_path / "a.safetensors", metadata={"format": "pt", "note": "größer"})
    assert_holds(tmp_path / "a.safetensors", tensors)
    with open_tensors(tmp_path / "a.safetensors") as found:
        assert found.metadata == {"format": "pt", "note": "größer"}
        assert found.container == "safetensors"


def test_tensors_stay_valid_after_closing_and_writing_to_them_leaves_the_file_alone(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.arange(4.0)}, path)
    before = path.read_bytes()
    with open_tensors(path) as found:
        tensor = found.tensor("a")
        raw = found.raw("a")
    tensor.add_(1)
    assert tensor.tolist() == [1, 2, 3, 4]
    assert raw.nbytes == 16
    assert path.read_bytes() == before


def test_unaligned_tensors_are_read(tmp_path):
    data = b"\x07" + torch.tensor([1.5, -2.0]).numpy().tobytes()
    header = {
        "byte": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "f": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]},
    }
    with open_tensors(write_header(tmp_path / "a.safetensors", header, data)) as found:
        assert found.tensor("f").tolist() == [1.5, -2.0]


def test_an_unknown_key_is_a_key_error(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with open_tensors(tmp_path / "a.safetensors") as found, pytest.raises(KeyError):
        found.tensor("b")


F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
BROKEN_HEADERS = {
    "unknown number format": ({"a": {**F32, "dtype": "F4"}}, 4, "F4"),
    "shape that does not fill its bytes": ({"a": {**F32, "shape": [2]}}, 4, "does not fill"),
    "overlap": ({"a": F32, "b": {**F32, "data_offsets": [2, 6]}}, 6, "overlaps"),
    "hole": ({"a": F32, "b": {**F32, "data_offsets": [8, 12]}}, 12, "hole"),
    "negative size": ({"a": {**F32, "shape": [-1]}}, 4, "damaged at 'a'"),
    "offset that is no number": ({"a": {**F32, "data_offsets": [0, True]}}, 4, "damaged at 'a'"),
    "field missing": ({"a": {"dtype": "F32", "shape": [1]}}, 4, "damaged at 'a'"),
    "metadata that is not text": ({"__metadata__": {"x": 1}, "a": F32}, 4, "text to text"),
    "truncated data": ({"a": {**F32, "shape": [100], "data_offsets": [0, 400]}}, 399, "truncated"),
    "bytes after the last tensor": ({"a": F32}, 5, "follow the last tensor"),
    "a list": (b"[1, 2]", 0, "not a safetensors file"),
    "broken JSON": (b'{"a": ', 0, "damaged"),
    "duplicate key": (b'{"a": 1, "a": 2}', 0, "'a' twice"),
    "not UTF-8": (b'{"\xff": 1}', 0, "damaged"),
    "a lone surrogate": (b'{"\\ud800": 1}', 0, "damaged"),
    "endless nesting": (b'{"a":' + b"[" * 100_000, 0, "damaged"),
    "a giant number": (b'{"a":' + b"9" * 10_000 + b"}", 0, "damaged"),
}


@pytest.mark.parametrize("name", BROKEN_HEADERS)
def test_a_damaged_header_is_one_clear_error(tmp_path, name):
    header, size, expected = BROKEN_HEADERS[name]
    assert expected in refusal(write_header(tmp_path / "a.safetensors", header, bytes(size)))


@given(cut=st.integers(0, 10**6), flip=st.integers(0, 10**6), value=st.integers(0, 255))
@settings(max_examples=150, deadline=None)
@pytest.mark.fault("what is wrong with the file, in one line")
def test_any_damage_is_a_user_error_or_harmless(tmp_path_factory, cut, flip, value):
    path = tmp_path_factory.mktemp("fuzz") / "a.ckpt"
    if cut % 2:
        save_file({"a": torch.ones(3), "b": torch.zeros(2, 2)}, path)
    else:
        torch.save({"state_dict": {"a": torch.ones(3)}}, path)
    data = bytearray(path.read_bytes())
    data[flip % len(data)] = value
    path.write_bytes(data[: len(data) - cut % 40])
    try:
        with open_tensors(path) as found:
            for key in found.keys():  # noqa: SIM118 - TensorFile is no dict
                found.tensor(key)
    except UserError:
        pass


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty"),
        (b"\n<!DOCTYPE html><html><body>Log in</body></html>", "web page"),
        (b"<HTML><head>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"\x10\0\0\0\0\0\0\0{", "truncated"),
        (b"abc", "only 3 bytes"),
        (b"This is a text that somebody renamed.", "not a safetensors file"),
    ],
)
def test_what_is_no_model_is_named(tmp_path, content, expected):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    assert expected in refusal(path)


def test_a_missing_file_and_a_plain_folder_are_named(tmp_path):
    assert "no such file" in refusal(tmp_path / "missing.safetensors")
    assert "diffusers" in refusal(tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["a.ckpt", "a.pt", "a.bin", "wrong-name.safetensors"])
def test_reads_what_torch_saves(tmp_path, zipped, name):
    tensors = sample_tensors(DTYPES if zipped else [d for d in DTYPES if "float8" not in str(d)])
    base = torch.arange(24.0)
    tensors["transposed"] = torch.arange(24.0).reshape(4, 6).t()
    tensors["slice"] = base[3:9]
    tensors["shared"] = base
    tensors["parameter"] = torch.nn.Parameter(torch.randn(3))
    tensors["expanded"] = torch.tensor([1.0, 2.0]).expand(3, 2)
    torch.save(tensors, tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert_holds(tmp_path / name, tensors)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.fault("that it is truncated")
def test_a_truncated_torch_file_is_one_clear_error(tmp_path, zipped):
    path = tmp_path / "a.ckpt"
    torch.save({"a": torch.ones(1000)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:-100])
    assert "truncated or damaged" in refusal(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_nested_state_dicts_are_unwrapped_and_what_lies_beside_is_reported(tmp_path, zipped):
    document = {
        "epoch": 3,
        "state_dict": {"model.a": torch.ones(2), "state_dict": {"model.b": torch.zeros(3)}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.full((2,), 5.0)}}}],
    }
    torch.save(document, tmp_path / "a.ckpt", _use_new_zipfile_serialization=zipped)
    with open_tensors(tmp_path / "a.ckpt") as found:
        assert found.keys() == ["model.b"]
        assert sorted(found.extra_keys()) == ["model.a", "optimizer_states.0.state.0.exp_avg"]
        assert found.tensor("optimizer_states.0.state.0.exp_avg").tolist() == [5, 5]
        assert found.notes == ["left out, not weights: epoch", "beside the weights: model, optimizer_states"]


def test_other_trainers_ema_copies_are_readable_extras(tmp_path):
    """naifu keeps a list of shadow parameters, scal-sdt a second state dict."""
    torch.save(
        {
            "state_dict": {"unet.w": torch.zeros(1)},
            "model_ema": {"decay": 0.995, "num_updates": 4, "shadow_params": [torch.ones(1)], "collected_params": None},
            "unet_ema": {"state_dict": {"w": torch.full((1,), 2.0)}, "decay": torch.tensor(0.5)},
        },
        tmp_path / "a.ckpt",
    )
    with open_tensors(tmp_path / "a.ckpt") as found:
        assert found.keys() == ["unet.w"]
        assert found.tensor("model_ema.shadow_params.0").item() == 1
        assert found.tensor("unet_ema.state_dict.w").item() == 2


def make_diffusers_folder(root, suffix):
    parts = {"unet": {"conv_in.weight": torch.ones(2, 2)}, "vae": {"quant_conv.bias": torch.zeros(3)}}
    (root / "model_index.json").write_text("{}")
    for part, tensors in parts.items():
        (root / part).mkdir()
        file = root / part / f"diffusion_pytorch_model{suffix}"
        torch.save(tensors, file) if suffix == ".bin" else save_file(tensors, file, {"sdtrain": "{}"})
    (root / "text_encoder").mkdir()
    save_file({"text_model.final_layer_norm.bias": torch.ones(4)}, root / "text_encoder" / "model.fp16.safetensors")


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_diffusers_folder_reads_as_one_table(tmp_path, suffix):
    make_diffusers_folder(tmp_path, suffix)
    with open_tensors(tmp_path) as found:
        assert found.container == "folder"
        assert found.metadata == ({"sdtrain": "{}"} if suffix == ".safetensors" else {})
        assert found.shapes() == {
            "unet/conv_in.weight": (2, 2),
            "vae/quant_conv.bias": (3,),
            "text_encoder/text_model.final_layer_norm.bias": (4,),
        }


def test_sharded_parts_are_joined_and_a_missing_shard_is_named(tmp_path):
    unet = tmp_path / "unet"
    unet.mkdir()
    for number in (1, 2):
        save_file({f"k{number}": torch.full((1,), float(number))}, unet / f"part-{number}.safetensors")
    index = {"weight_map": {"k1": "part-1.safetensors", "k2": "part-2.safetensors"}}
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with open_tensors(tmp_path) as found:
        assert found.tensor("unet/k2").item() == 2
    (unet / "part-2.safetensors").unlink()
    assert "part-2.safetensors" in refusal(tmp_path)


@pytest.mark.fault("a refusal that names the path")
def test_a_shard_outside_the_folder_is_refused(tmp_path):
    (tmp_path / "unet").mkdir()
    save_file({"k": torch.zeros(1)}, tmp_path / "secret.safetensors")
    index = {"weight_map": {"k": "../secret.safetensors"}}
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    assert "missing" in refusal(tmp_path)


def test_a_folder_part_without_weights_is_named(tmp_path):
    (tmp_path / "unet").mkdir()
    assert "no weights" in refusal(tmp_path)
