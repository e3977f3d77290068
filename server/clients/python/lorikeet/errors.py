"""What can go wrong. Codes are those of server/contract/README.md; decide on the class or the code, not on messages."""

from __future__ import annotations

import json
from typing import Any

MESSAGE_CHARACTERS_MAX = 500


class LorikeetError(Exception):
    """A refusal. ``status`` is None where this client itself refused, or nobody answered."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        field: str | None = None,
        expected: Any = None,
        actual: Any = None,
    ) -> None:
        super().__init__(f"{code}: {message[:MESSAGE_CHARACTERS_MAX]}")
        self.code = code
        self.message = message[:MESSAGE_CHARACTERS_MAX]
        self.status = status
        self.field = field
        self.expected = expected
        self.actual = actual


class Unreachable(LorikeetError):
    """No whole answer came within the timeout or the tries. A push may still have become active: pushing again is safe."""


class NotYet(LorikeetError):
    """What was waited for did not become current in time."""


class NotAllowed(LorikeetError):
    """No valid token, or one that may not do this."""


class NotFound(LorikeetError):
    """There is no such adapter or revision."""


class StepNotNewer(LorikeetError):
    """A revision of this step or a later one is there already."""


class Superseded(LorikeetError):
    """A newer push of the same adapter came while this one waited for its turn."""


class PreconditionFailed(LorikeetError):
    """Another revision than ``expect`` is current; ``actual`` says which."""


class InvalidAdapter(LorikeetError):
    """Tensors or config that cannot be served; ``field`` says which tensor or key."""


class ZeroEffect(InvalidAdapter):
    """Every B is zero. Where that is meant, as in step 0, push with ``allow_zero_effect=True``."""


class DigestMismatch(LorikeetError):
    """Other bytes arrived than were sent, or the tensors changed while they were sent."""


class Busy(LorikeetError):
    """The other side could not take it now, and still not after all tries."""


_BY_CODE: dict[str, type[LorikeetError]] = {
    "step_not_newer": StepNotNewer,
    "superseded": Superseded,
    "precondition_failed": PreconditionFailed,
    "digest_mismatch": DigestMismatch,
    "zero_effect": ZeroEffect,
    "malformed_safetensors": InvalidAdapter,
    "malformed_config": InvalidAdapter,
    "missing_config": InvalidAdapter,
}
_BY_STATUS: dict[int, type[LorikeetError]] = {
    401: NotAllowed,
    403: NotAllowed,
    404: NotFound,
    412: PreconditionFailed,
    422: InvalidAdapter,
    429: Busy,
    503: Busy,
    504: Busy,
}


def refusal(status: int, body: bytes) -> LorikeetError:
    """What an answer other than 2xx says; one that is not of our API, as of a proxy, is named by its status."""
    try:
        error = json.loads(body)["error"]
        code, message = str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        error = {}
        code, message = f"http_{status}", body[:MESSAGE_CHARACTERS_MAX].decode("utf-8", "replace")
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status) or LorikeetError
    detail = {key: error.get(key) for key in ("field", "expected", "actual")}
    return kind(code, message, status=status, **detail)


def invalid(code: str, field: str, expected: Any, actual: Any) -> InvalidAdapter:
    """A refusal before anything is sent, in the words of the server's."""
    message = f"Expected {expected} for {field} but received {actual}"
    return InvalidAdapter(code, message, field=field, expected=expected, actual=actual)
