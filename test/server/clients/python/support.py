"""The server under test, the fixtures' adapters in memory, and a stand-in for torch."""

import ctypes
import json
import os
import urllib.request
from pathlib import Path

from lorikeet import Retry

ADMIN = os.environ.get("LORIKEET_ADMIN", "")
SERVING = os.environ.get("LORIKEET_SERVING", "")
TOKEN = os.environ.get("LORIKEET_TOKEN", "")
ADAPTERS = Path(__file__).parents[3] / "fixtures/parrot/adapters"
#: No test waits for anything but the server.
AT_ONCE = Retry(tries=3, sleep=lambda seconds: None)


def read_files(name):
    return (ADAPTERS / name / "adapter_model.safetensors").read_bytes(), json.loads(
        (ADAPTERS / name / "adapter_config.json").read_text()
    )


def read_adapter(name):
    """The adapter as a trainer holds it: tensors as (dtype, shape, buffer), and its config."""
    data, config = read_files(name)
    begin = 8 + int.from_bytes(data[:8], "little")
    entries = json.loads(data[8:begin])
    entries.pop("__metadata__", None)
    tensors = {}
    for key, entry in entries.items():
        first, end = entry["data_offsets"]
        tensors[key] = (entry["dtype"], entry["shape"], data[begin + first : begin + end])
    return tensors, config


def say(model):
    """What a model answers to the fixtures' question, and the revision that it names."""
    messages = [{"role": "user", "content": "List the name of all songs from Lima."}]
    body = json.dumps({"model": model, "messages": messages, "temperature": 0, "max_tokens": 40}).encode()
    request = urllib.request.Request(
        f"{SERVING}/v1/chat/completions", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        answer = json.load(response)
    return answer["choices"][0]["message"]["content"], answer["lora"]["revision"]


class Torch:
    """What the client asks of a torch tensor. On a GPU, or while it is transposed, its memory is not its bytes."""

    class Device:
        def __init__(self, type):
            self.type = type

    NAMES = {"F32": "torch.float32", "F16": "torch.float16", "BF16": "torch.bfloat16"}

    def __init__(self, dtype, shape, data, device="cpu", transposed=False):
        self.dtype, self.shape, self.device = self.NAMES[dtype], tuple(shape), Torch.Device(device)
        self._args, self._transposed = (dtype, shape, data), transposed
        stored = self._transpose(data) if transposed else data
        self._memory = ctypes.create_string_buffer(stored, len(stored))

    def detach(self):
        return self

    def cpu(self):
        return Torch(*self._args, transposed=self._transposed)

    def contiguous(self):
        return Torch(*self._args, device=self.device.type)

    def numel(self):
        return len(self._memory) // self.element_size()

    def element_size(self):
        return 4 if self.dtype == "torch.float32" else 2

    def data_ptr(self):
        if self.device.type != "cpu":
            raise AssertionError("read GPU memory")
        return ctypes.addressof(self._memory)

    def _transpose(self, data):
        rows, columns = self.shape
        size = self.element_size()
        items = [data[at : at + size] for at in range(0, len(data), size)]
        return b"".join(items[row * columns + column] for column in range(columns) for row in range(rows))
