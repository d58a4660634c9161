"""Piecewise conversion against torch's own, and the ends of the formats."""
import pytest
import torch
from safetensors.torch import load_file

from lib_sdtrain.model.casting import convert_into
from lib_sdtrain.model.writer import CheckpointWriter

HALF_END = 65504.0


@pytest.mark.parametrize("source", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("target", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_pieces_are_converted_as_a_whole_would_be(source, target):
    values = torch.randn(100_001, generator=torch.Generator().manual_seed(0)).to(source)
    found = torch.empty(100_001, dtype=target)
    assert convert_into(found, values) is False
    assert torch.equal(found.float(), values.to(target).float())


@pytest.mark.parametrize("position", [0, 32767, 32768, 99_999])
@pytest.mark.parametrize(("value", "expected"), [(HALF_END, False), (HALF_END * 1.01, True), (-70000.0, True)])
def test_a_value_beyond_the_format_is_found_wherever_it_stands(position, value, expected):
    values = torch.zeros(100_000)
    values[position] = value
    assert convert_into(torch.empty(100_000, dtype=torch.float16), values) is expected


def test_formats_that_reach_further_are_not_searched():
    assert convert_into(torch.empty(1), torch.tensor([HALF_END], dtype=torch.float16)) is False
    assert convert_into(torch.empty(1, dtype=torch.int64), torch.tensor([1e9])) is False


def test_the_writer_converts_tensors_larger_than_a_piece(tmp_path):
    tensor = torch.randn(1000, 2100, generator=torch.Generator().manual_seed(0))
    specs = {"a": (torch.float16, (2100, 1000)), "b": (torch.float32, ())}
    with CheckpointWriter(tmp_path / "a.safetensors", specs, {}) as writer:
        assert writer.write_cast("a", tensor.t()) is False
        assert writer.write_cast("b", torch.tensor(0.5, dtype=torch.float64)) is False
    found = load_file(tmp_path / "a.safetensors")
    assert torch.equal(found["a"], tensor.t().half())
    assert found["b"].item() == 0.5


def test_a_tensor_of_another_shape_is_refused(tmp_path):
    writer = CheckpointWriter(tmp_path / "a.safetensors", {"a": (torch.float16, (4,))}, {})
    with pytest.raises(ValueError, match="announced"), writer:
        writer.write_cast("a", torch.zeros(2, 2))
