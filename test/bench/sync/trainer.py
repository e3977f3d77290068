"""A trainer that has an adapter in memory: answers each line of JSON on stdin with the milliseconds that it took."""

import hashlib
import http.client
import json
import sys
from pathlib import Path
from time import perf_counter
from urllib.parse import urlsplit

from lorikeet import Client, OperatorClient
from lorikeet.safetensors import Body
from lorikeet.tensors import view_tensors


class Trainer:
    def __init__(self, file, config):
        data = memoryview(Path(file).read_bytes())
        begin = 8 + int.from_bytes(data[:8], "little")
        entries = json.loads(bytes(data[8:begin]))
        entries.pop("__metadata__", None)
        self.file = data
        self.config = json.loads(Path(config).read_text())
        self.tensors = {}
        for name, entry in entries.items():
            first, end = entry["data_offsets"]
            self.tensors[name] = (entry["dtype"], entry["shape"], data[begin + first : begin + end])
        self.changes = 0

    def hash(self):
        began = perf_counter()
        hashlib.sha256(self.file).digest()
        return {"whole": since(began)}

    def put(self, url):
        began = perf_counter()
        send("PUT", url, self.file, "application/octet-stream")
        return {"whole": since(began)}

    def push(self, url, token, namespace=None):
        client = Client(url, token) if namespace is None else OperatorClient(url, namespace, token)
        config = self.changed()
        began = perf_counter()
        Body(view_tensors(self.tensors))
        serialise = since(began)
        began = perf_counter()
        pushed = client.push("live", self.tensors, config)
        if not pushed.everywhere:
            raise RuntimeError(f"not everywhere: {pushed.pods}")
        return {"whole": since(began), "serialise": serialise, **pushed.timings}

    def save_and_load(self, url, folder):
        path = Path(folder) / "live"
        path.mkdir(exist_ok=True)
        config = json.dumps(self.changed())
        began = perf_counter()
        (path / "adapter_config.json").write_text(config)
        with open(path / "adapter_model.safetensors", "wb") as file:
            for block in Body(view_tensors(self.tensors)).blocks():
                file.write(block)
        save = since(began)
        body = {"lora_name": "live", "lora_path": str(path), "load_inplace": True}
        send("POST", f"{url}/v1/load_lora_adapter", json.dumps(body).encode(), "application/json")
        return {"whole": since(began), "save": save}

    def changed(self):
        """Another digest each time, so that nothing is a no-op: a key that has no effect changes."""
        self.changes += 1
        return {**self.config, "lora_dropout": self.changes / 4096}


def send(method, url, body, content_type):
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=300)
    try:
        connection.request(method, parts.path or "/", body, {"Content-Type": content_type})
        response = connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise RuntimeError(f"{response.status} {text[:300]!r}")
    finally:
        connection.close()


def since(began):
    return (perf_counter() - began) * 1000


trainer = Trainer(*sys.argv[1:])
for line in sys.stdin:
    call = json.loads(line)
    print(json.dumps(getattr(trainer, call.pop("do"))(**call)), flush=True)
