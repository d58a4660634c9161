"""The number formats of safetensors files: name in the header, torch dtype, bytes per value."""
from __future__ import annotations

import torch

from lib_sdtrain.errors import UserError

# Lowest alignment last: the safetensors library lays tensors out in this order, so that every tensor
# starts at a multiple of its own item size.
_LAYOUT_ORDER = (
    ("U64", "uint64"),
    ("I64", "int64"),
    ("F64", "float64"),
    ("F32", "float32"),
    ("U32", "uint32"),
    ("I32", "int32"),
    ("BF16", "bfloat16"),
    ("F16", "float16"),
    ("U16", "uint16"),
    ("I16", "int16"),
    ("F8_E4M3", "float8_e4m3fn"),
    ("F8_E5M2", "float8_e5m2"),
    ("I8", "int8"),
    ("U8", "uint8"),
    ("BOOL", "bool"),
)

# Unsigned 16 to 64 bit integers exist since torch 2.3 only; the WebUI's default torch is 2.1.
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, attr) for name, attr in _LAYOUT_ORDER if hasattr(torch, attr)}
NAMES: dict[torch.dtype, str] = {dtype: name for name, dtype in DTYPES.items()}
LAYOUT_RANK: dict[torch.dtype, int] = {dtype: rank for rank, dtype in enumerate(DTYPES.values())}
# The names that users know.
SHORT_NAMES: dict[str, torch.dtype] = {
    "fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32,
    "fp8_e4m3": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2,
}  # fmt: skip


def short_name(dtype: torch.dtype) -> str:
    """The name users know (`fp16`, `fp8_e4m3`), else safetensors' name in lower case (`i64`)."""
    for short, known in SHORT_NAMES.items():
        if known == dtype:
            return short
    return NAMES[dtype].lower()


def dtype_name(dtype: torch.dtype) -> str:
    """The safetensors name of a torch dtype; `UserError` for one that such a file cannot hold."""
    if dtype not in NAMES:
        raise UserError(f"a safetensors file cannot hold {dtype} tensors", fix="convert them to fp16, bf16 or fp32")
    return NAMES[dtype]
