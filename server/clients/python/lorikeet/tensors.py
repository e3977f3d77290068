"""Tensors as callers hold them (torch, numpy, raw buffers) seen as dtype, shape and bytes; neither library is imported."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from .errors import invalid

ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_DTYPES = {
    "float32": "F32",
    "float": "F32",
    "float16": "F16",
    "half": "F16",
    "bfloat16": "BF16",
    "F32": "F32",
    "F16": "F16",
    "BF16": "BF16",
}


@dataclass(frozen=True)
class Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    #: Row-major little-endian bytes: a view where the caller's memory allows, else a copy that lives while it is used.
    read: Callable[[], memoryview]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * ITEM_BYTES[self.dtype]


def view_tensors(tensors: Mapping[str, Any]) -> list[Tensor]:
    """Reads no data; refuses what cannot be sent, naming it."""
    if not tensors:
        raise invalid("no_modules", "tensors", "at least one tensor", "none")
    return [_view(name, value) for name, value in tensors.items()]


def _view(name: str, value: Any) -> Tensor:
    if isinstance(value, tuple) and len(value) == 3:
        return _view_buffer(name, *value)
    if hasattr(value, "detach"):
        return _view_torch(name, value)
    if hasattr(value, "__array_interface__") or hasattr(value, "__array__"):
        return _view_numpy(name, value)
    want = "a torch tensor, a numpy array or (dtype, shape, buffer)"
    raise invalid("malformed_safetensors", name, want, type(value).__name__)


def _view_buffer(name: str, dtype: str, shape: Any, buffer: Any) -> Tensor:
    tensor = Tensor(name, _dtype(name, dtype), tuple(int(size) for size in shape), lambda: memoryview(buffer).cast("B"))
    actual = memoryview(buffer).nbytes
    if actual != tensor.nbytes:
        raise invalid("shape_mismatch", name, f"{tensor.nbytes} bytes of {dtype} {list(tensor.shape)}", actual)
    return tensor


def _view_torch(name: str, value: Any) -> Tensor:
    if hasattr(value, "full_tensor"):
        # Gathering is a collective call: made on one rank alone it would hang.
        raise invalid("malformed_safetensors", name, "a whole tensor (full_tensor() on every rank)", "a DTensor")
    if value.device.type == "meta":
        raise invalid("malformed_safetensors", name, "a tensor with data", "one on the meta device")
    if sys.byteorder != "little":
        raise invalid("malformed_safetensors", name, "a little-endian machine for torch tensors", sys.byteorder)
    dtype = _dtype(name, str(value.dtype).removeprefix("torch."))

    def read() -> memoryview:
        whole = value.detach().cpu().contiguous()
        nbytes = whole.numel() * whole.element_size()
        # Needs no numpy, and numpy knows no bfloat16.
        array = (ctypes.c_ubyte * nbytes).from_address(whole.data_ptr())
        array.owner = whole
        return memoryview(array).cast("B")

    return Tensor(name, dtype, tuple(value.shape), read)


def _view_numpy(name: str, value: Any) -> Tensor:
    dtype = _dtype(name, value.dtype.name)

    def read() -> memoryview:
        # The dtypes of ml_dtypes have no other byte order.
        swapped = value.dtype.byteorder == ">" or (sys.byteorder == "big" and value.dtype.byteorder != "<")
        little = value.dtype.newbyteorder("<") if swapped else value.dtype
        flat = value.astype(little, order="C", copy=False).reshape(-1)
        return memoryview(flat.view("uint8"))

    return Tensor(name, dtype, tuple(value.shape), read)


def _dtype(name: str, dtype: str) -> str:
    known = _DTYPES.get(dtype)
    if known is None:
        raise invalid("unsupported_dtype", name, "F32, F16 or BF16", dtype)
    return known
