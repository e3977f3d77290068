"""The safetensors format, written from memory: 8 bytes of length, a JSON header, the tensors' bytes one after the other."""

from __future__ import annotations

import json
from collections.abc import Iterator

from .errors import invalid
from .tensors import ITEM_BYTES, Tensor

#: The other side takes no longer one.
HEADER_BYTES_MAX = 1 << 20
BLOCK_BYTES = 1 << 18


class Body:
    """A file that is never whole in memory; it can be read as often as it has to be sent."""

    def __init__(self, tensors: list[Tensor], metadata: dict[str, str] | None = None) -> None:
        # Wide numbers first, so that each tensor is aligned to its own numbers, as the format's own writer does it.
        self._tensors = sorted(tensors, key=lambda tensor: (-ITEM_BYTES[tensor.dtype], tensor.name))
        self.header = _header(self._tensors, metadata or {})
        self.nbytes = len(self.header) + sum(tensor.nbytes for tensor in self._tensors)

    def blocks(self) -> Iterator[memoryview]:
        yield memoryview(self.header)
        for tensor in self._tensors:
            data = tensor.read()
            for begin in range(0, data.nbytes, BLOCK_BYTES):
                yield data[begin : begin + BLOCK_BYTES]


def _header(tensors: list[Tensor], metadata: dict[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    begin = 0
    for tensor in tensors:
        end = begin + tensor.nbytes
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > HEADER_BYTES_MAX:
        raise invalid("malformed_safetensors", "header", f"at most {HEADER_BYTES_MAX} bytes", len(text))
    return len(text).to_bytes(8, "little") + text
