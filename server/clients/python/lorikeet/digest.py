"""The identity of a revision, as server/contract/digest.ts computes it."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from .errors import invalid


def canonical_json(value: Any, key: str = "config") -> str:
    """RFC 8785: sorted keys, no white space, numbers as JavaScript writes them."""
    if value is None or isinstance(value, (bool, str)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (int, float)):
        return _number(value, key)
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(canonical_json(item, key) for item in value) + "]"
    if isinstance(value, dict):
        # By UTF-16 units, which is not the order of code points.
        names = sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
        items = (f"{json.dumps(name, ensure_ascii=False)}:{canonical_json(value[name], name)}" for name in names)
        return "{" + ",".join(items) + "}"
    raise invalid("malformed_config", key, "a value that JSON has", type(value).__name__)


def revision_digest(config: str, tensors_sha256: str) -> str:
    """``config`` is canonical; ``tensors_sha256`` is of the whole safetensors file."""
    config_sha256 = hashlib.sha256(config.encode()).hexdigest()
    identity = f"lora-v1\n{config_sha256}\n{tensors_sha256}\n"
    return f"sha256:{hashlib.sha256(identity.encode()).hexdigest()}"


def _number(value: int | float, key: str) -> str:
    if not math.isfinite(value) or (value == int(value) and abs(value) >= 1 << 53):
        raise invalid("malformed_config", key, "a number that is exact in 53 bits", value)
    if value == int(value):
        return str(int(value))
    # Both languages choose the shortest digits; they differ in where the exponent begins and in how it is written.
    mantissa, _, exponent = repr(float(value)).partition("e")
    if exponent == "":
        return mantissa
    if int(exponent) >= -6:
        sign, digits = ("-", mantissa[1:]) if mantissa[0] == "-" else ("", mantissa)
        return f"{sign}0.{'0' * (-int(exponent) - 1)}{digits.replace('.', '')}"
    return f"{mantissa}e{int(exponent)}"
