from __future__ import annotations

import os
import re
import secrets

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


def trace_headers(traceparent: str | None) -> tuple[str, dict[str, str]]:
    """The trace id of a call, one for all of its tries, and the W3C header that carries it: as given, as
    ``TRACEPARENT`` of the environment says, else a new one. One that the caller gives must be well formed; that of the
    environment is not looked at where it is not."""
    if traceparent is not None and not _TRACEPARENT.fullmatch(traceparent):
        raise ValueError(f"Expected 00-<32 hex digits>-<16 hex digits>-<2 hex digits> but received {traceparent!r}")
    text = traceparent or os.environ.get("TRACEPARENT", "")
    match = _TRACEPARENT.fullmatch(text)
    if match is not None:
        return match.group(1), {"traceparent": text}
    trace_id = secrets.token_hex(16)
    return trace_id, {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-00"}
