"""An unpickler that runs nothing: it reads what torch.save wrote and gives plain data.

A pickle is a program; `find_class` is its only way to reach code. Here every name it may ask for is
looked up in a fixed table whose values are our own inert classes and pure functions; torch's and numpy's
own functions are never called. Names of training frameworks (Lightning's callbacks, configuration
objects) become inert stubs. Everything else is refused by name.
"""
from __future__ import annotations

import pickle
import pickletools
import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import torch

from lib_sdtrain.errors import UserError

# What a damaged pickle can raise while it is read, besides the explicit refusals.
_DAMAGE = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
    OverflowError, MemoryError, RecursionError, struct.error,
)  # fmt: skip


class _Sealed:
    """A pickle may set the state of any object it has built; these refuse."""

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("the pickle tries to change what it may only name")


_MEMO_WRITES = {"PUT", "BINPUT", "LONG_BINPUT"}
_MAX_MEMO = 20_000_000  # checkpoints with optimizer states use some hundred thousand


@dataclass(frozen=True)
class StorageRef(_Sealed):
    """A storage outside the pickle: its `key`, the dtype of its values (None when untyped) and their count."""

    key: str
    dtype: torch.dtype | None
    count: int
    offset: int = 0


@dataclass(frozen=True)
class TensorRef(_Sealed):
    """A tensor as pickled: a strided view of a storage; `offset` and `stride` in values."""

    storage: StorageRef
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Stub:
    """Stands for an object of a class that is not needed: takes any arguments and state, does nothing."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def append(self, item: Any) -> None:
        """Ignored: the class may have been a list."""

    def extend(self, items: Any) -> None:
        """Ignored: the class may have been a list."""


class _Call(_Sealed):
    """A function that a pickle may call. Not a function itself, so that a pickle cannot set its defaults."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)


@dataclass(frozen=True)
class _StorageType(_Sealed):
    """The class of a storage, named in a persistent id; `dtype` None for an untyped one."""

    dtype: torch.dtype | None


def _counts(values: Any) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or not all(type(value) is int and value >= 0 for value in values):
        raise pickle.UnpicklingError("a tensor's shape or stride is damaged")
    return tuple(values)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, dtype: Any) -> TensorRef:
    shape, steps = _counts(size), _counts(stride)
    if not isinstance(storage, StorageRef) or not isinstance(dtype, torch.dtype) or len(shape) != len(steps):
        raise pickle.UnpicklingError("a tensor is damaged")
    return TensorRef(storage, dtype, _counts([offset])[0], shape, steps)


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any) -> TensorRef:
    return _tensor(storage, offset, size, stride, getattr(storage, "dtype", None))


def _rebuild_tensor_v2(
    storage: Any, offset: Any, size: Any, stride: Any, _grad: Any = False, _hooks: Any = None, metadata: Any = None,
) -> TensorRef:  # fmt: skip
    if metadata:
        raise pickle.UnpicklingError("a tensor is stored conjugated or negated, which is not supported")
    return _rebuild_tensor(storage, offset, size, stride)


def _rebuild_tensor_v3(*args: Any) -> TensorRef:
    storage, offset, size, stride, _grad, _hooks, dtype = args[:7]
    return _tensor(storage, offset, size, stride, dtype)


def _first(value: Any, *_rest: Any) -> Any:
    return value


def _rebuild_from_type(function: Any, _type: Any, args: Any, _state: Any = None) -> Any:
    if not isinstance(function, _Call) or not isinstance(args, tuple):
        raise pickle.UnpicklingError("a tensor is damaged")
    return function(*args)


def _plain_dict(*_args: Any) -> dict[Any, Any]:
    return {}


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in {"latin1", "latin-1"}:
        raise pickle.UnpicklingError("the pickle encodes text in an unexpected way")
    return text.encode("latin-1")


class _NumpyDtype(Stub):
    """`numpy.dtype('f8')`: only its code is kept."""

    def __init__(self, code: Any = "", *_args: Any) -> None:
        self.code = code if isinstance(code, str) else ""


# numpy type code -> struct format: single numbers (learning rates, losses) that frameworks save as numpy scalars
_SCALARS = {"f8": "<d", "f4": "<f", "f2": "<e", "i8": "<q", "i4": "<i", "i2": "<h", "i1": "<b",
            "u8": "<Q", "u4": "<I", "u2": "<H", "u1": "<B", "b1": "<?"}  # fmt: skip


def _numpy_scalar(dtype: Any, value: Any = b"") -> Any:
    code = _SCALARS.get(getattr(dtype, "code", ""))
    if code is None or not isinstance(value, bytes):
        return Stub()
    return struct.unpack(code, value)[0]


_STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip
_DTYPE_NAMES = (
    "float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int64", "int32", "int16", "int8",
    "uint64", "uint32", "uint16", "uint8", "bool",
)  # fmt: skip


def _allowed() -> dict[tuple[str, str], Any]:
    table: dict[tuple[str, str], Any] = {("collections", "OrderedDict"): OrderedDict}
    for builtins in ("builtins", "__builtin__"):
        table |= {(builtins, "set"): set, (builtins, "frozenset"): frozenset, (builtins, "complex"): complex}
    for name in ("defaultdict", "Counter"):
        table["collections", name] = _Call(_plain_dict)
    for name, dtype in _STORAGES.items():
        table["torch", name] = table["torch.cuda", name] = _StorageType(dtype)
    table["torch.storage", "UntypedStorage"] = table["torch", "UntypedStorage"] = _StorageType(None)
    table |= {("torch", name): getattr(torch, name) for name in _DTYPE_NAMES if hasattr(torch, name)}
    calls: dict[tuple[str, str], Callable[..., Any]] = {
        ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
        ("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor_v3,
        ("torch._utils", "_rebuild_parameter"): _first,
        ("torch._utils", "_rebuild_parameter_with_state"): _first,
        ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
        ("torch.nn.parameter", "Parameter"): _first,
        ("torch", "Size"): tuple,
        ("torch.serialization", "_get_layout"): _first,
        ("_codecs", "encode"): _encode,
        ("numpy.core.multiarray", "scalar"): _numpy_scalar,
        ("numpy._core.multiarray", "scalar"): _numpy_scalar,
    }
    return table | {name: _Call(function) for name, function in calls.items()}


# Classes of these packages are met in honest training checkpoints and are not needed for the weights.
_STUBBED = (
    "pytorch_lightning", "lightning", "lightning_fabric", "omegaconf", "torch.optim", "torch.nn.modules",
    "transformers", "diffusers", "ldm", "sgm",
)  # fmt: skip
_STUBBED_NAMES = {
    ("argparse", "Namespace"), ("typing", "Any"), ("torch", "device"), ("torch", "Tensor"), ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"), ("torch", "Generator"),
    ("datetime", "datetime"), ("datetime", "timedelta"),
    ("pathlib", "Path"), ("pathlib", "PosixPath"), ("pathlib", "WindowsPath"),
}  # fmt: skip


class RestrictedUnpickler(pickle.Unpickler):
    """Reads one object. Storages become `StorageRef`, tensors `TensorRef`, other classes `Stub`.

    Raises `UserError` for a name outside the table ("posix.system").
    """

    allowed = _allowed()

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")
        self.widths: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        """The harmless stand-in for `module.name`, or a refusal."""
        if (module, name) in self.allowed:
            return self.allowed[module, name]
        if module == "numpy" and name == "dtype":
            return _NumpyDtype
        if (module, name) in _STUBBED_NAMES or any(module == top or module.startswith(top + ".") for top in _STUBBED):
            return type("Stub", (Stub,), {})
        raise UserError(
            f"refused: the file wants to use {module}.{name} while being read, so it may run any program",
            fix="do not load it elsewhere either; look for a .safetensors version",
        )

    def persistent_load(self, pid: Any) -> StorageRef:
        """A storage named by torch: ('storage', type, key, device, count[, view])."""
        if not isinstance(pid, tuple) or len(pid) not in {5, 6} or pid[0] != "storage":
            raise pickle.UnpicklingError("a storage is damaged")
        kind, key, count = pid[1], pid[2], pid[4]
        view = pid[5] if len(pid) == 6 else None
        if not isinstance(kind, _StorageType) or not isinstance(key, str):
            raise pickle.UnpicklingError("a storage is damaged")
        self.widths[key] = kind.dtype.itemsize if kind.dtype else 1
        if view is None:
            return StorageRef(key, kind.dtype, _counts([count])[0])
        _, offset, size = view
        return StorageRef(key, kind.dtype, _counts([size])[0], _counts([offset])[0])


def _refuse_memory_bombs(file: IO[bytes]) -> None:
    """Refuse a memo slot of an absurd number: the unpickler would first make room for all slots below it."""
    start = file.tell()
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in _MEMO_WRITES and argument > _MAX_MEMO:
            raise pickle.UnpicklingError(f"memo slot {argument}")
    file.seek(start)


def unpickle(file: IO[bytes]) -> tuple[Any, dict[str, int]]:
    """The next pickled object of `file`, and bytes per value of each storage it names.

    Raises `UserError` when the file asks for anything outside the table, or is damaged.
    """
    try:
        _refuse_memory_bombs(file)
        unpickler = RestrictedUnpickler(file)
        return unpickler.load(), unpickler.widths
    except _DAMAGE as error:
        raise UserError(f"the file is damaged or truncated ({error or type(error).__name__})") from error
