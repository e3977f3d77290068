from __future__ import annotations

import base64
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote

from .answers import Pushed, Removed, Revision, RolledBack
from .digest import canonical_json, revision_digest
from .errors import DigestMismatch, LorikeetError, NotYet
from .exchange import Answer, Exchange, Request
from .peft import config_dict, is_peft_model, read_peft_model
from .retry import Deadline, Retry
from .safetensors import Body
from .tensors import view_tensors
from .trace import trace_headers

#: All headers of a request together may have 32 KiB; a longer config goes into the file.
CONFIG_HEADER_CHARACTERS_MAX = 16 << 10
TIMEOUT_SECONDS = 300.0
POLL_SECONDS = 0.1
Wait = Literal["staged", "active"]
InFlight = Literal["Finish", "Migrate"]


class _Lorikeet(ABC):
    """What a pod and an operator offer alike."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        token_file: str | None = None,
        ca_file: str | None = None,
        timeout: float = TIMEOUT_SECONDS,
        retry: Retry | None = None,
    ) -> None:
        self._retry = retry or Retry()
        self._timeout = timeout
        self._exchange = Exchange(url, token=token, token_file=token_file, ca_file=ca_file, retry=self._retry)

    def push(
        self,
        name: str,
        tensors: Any,
        config: Any = None,
        *,
        step: int | None = None,
        expect: str | None = None,
        allow_zero_effect: bool = False,
        wait: Wait = "active",
        in_flight: InFlight | None = None,
        adapter: str | None = None,
        traceparent: str | None = None,
    ) -> Pushed:
        """Sends an adapter from memory; returns when it answers requests (``wait="active"``), or is only held.

        ``tensors``: a dict of name to torch tensor, numpy array or (dtype, shape, buffer), or a PEFT model (``adapter``
        says which of its adapters). ``config``: a dict or a PEFT LoraConfig. ``step``: refused unless newer than all
        before. ``expect``: the revision that must be current, or ``"*"`` for any. ``in_flight``: what becomes of running
        requests that do not say it: they finish on their revision, or migrate to this one. Pushing the same again is a no-op.
        ``traceparent``: the W3C trace that the push belongs to, else ``TRACEPARENT`` of the environment, else a new one.
        """
        if is_peft_model(tensors):
            tensors, own = read_peft_model(tensors, adapter)
            config = own if config is None else config
        text = None if config is None else canonical_json(config_dict(config))
        headers, metadata = _place_config(text)
        headers |= _push_headers(step, expect, allow_zero_effect)
        headers |= self._in_flight_headers(in_flight, wait)
        trace_id, traced = trace_headers(traceparent)
        headers |= traced
        body = Body(view_tensors(tensors), metadata)
        headers |= {"Content-Type": "application/octet-stream", "Content-Length": str(body.nbytes)}
        method, path = self._push_route(name, wait, expect)
        answer = self._exchange.call(Request(method, path, headers, body), self._timeout)
        reply = _json(answer)
        if text is not None:
            _require_digest(revision_digest(text, answer.sha256), reply.get("revision"))
        return Pushed(
            name=name,
            revision=reply["revision"],
            step=reply.get("step"),
            previous=reply.get("previous"),
            pods=reply.get("pods", []),
            timings=reply.get("timings") or reply.get("report", {}).get("timings", {}),
            everywhere=answer.status == 200,
            trace_id=trace_id,
        )

    def current(self, name: str) -> Revision | None:
        """The revision that ``name`` stands for; None where there is none, or not yet on all pods."""
        return next((revision for revision in self.revisions(name) if revision.current), None)

    def wait(
        self, name: str, *, revision: str | None = None, min_step: int | None = None, timeout: float | None = None
    ) -> Revision:
        """Returns the current revision once it is this one, or of this step or a later one."""
        if (revision is None) == (min_step is None):
            raise ValueError("Expected revision or min_step, and not both")
        deadline = Deadline(self._timeout if timeout is None else timeout)
        while True:
            found = self.current(name)
            if found is not None and _is_awaited(found, revision, min_step):
                return found
            if not deadline.allows(POLL_SECONDS):
                actual = None if found is None else found.revision
                wanted = revision or f"step {min_step}"
                message = f"Expected {wanted} of {name} within {deadline.seconds:g} s but {actual} is current"
                raise NotYet("not_yet", message, expected=wanted, actual=actual)
            self._retry.sleep(POLL_SECONDS)

    @abstractmethod
    def revisions(self, name: str) -> list[Revision]:
        """What pods hold of this adapter."""

    @abstractmethod
    def _in_flight_headers(self, in_flight: InFlight | None, wait: Wait) -> dict[str, str]: ...

    @abstractmethod
    def _push_route(self, name: str, wait: Wait, expect: str | None) -> tuple[str, str]: ...

    def _roll_back(self, path: str, name: str, fields: dict[str, Any]) -> RolledBack:
        answer = self._send("POST", path, {key: value for key, value in fields.items() if value is not None})
        reply = _json(answer)
        return RolledBack(
            name=name,
            revision=reply["revision"],
            previous=reply["previous"],
            pods=reply.get("pods", []),
            everywhere=answer.status == 200,
        )

    def _call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        return _json(self._send(method, path, body))

    def _send(self, method: str, path: str, body: object = None) -> Answer:
        if body is None:
            return self._exchange.call(Request(method, path), self._timeout)
        data = json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        return self._exchange.call(Request(method, path, headers, data), self._timeout)


class Client(_Lorikeet):
    """One server, by its admin port."""

    def revisions(self, name: str) -> list[Revision]:
        adapters = self._call("GET", "/lora/v1/state")["adapters"]
        held: list[dict[str, Any]] = next((adapter["revisions"] for adapter in adapters if adapter["name"] == name), [])
        return [
            Revision(
                revision=each["digest"],
                step=each["step"],
                bytes=each["bytes"],
                rank=each["rank"],
                current=each["state"] == "current",
                earlier=None,
                pods=[{"name": "", "state": each["state"], "tier": each["tier"]}],
            )
            for each in held
        ]

    def activate(
        self, name: str, revision: str, *, expect: str | None = None, in_flight: InFlight | None = None
    ) -> str | None:
        """Makes a revision current that the pod holds: a staged one, or an earlier one. Returns what was."""
        fields = {"revision": revision, "expectCurrent": expect, "inFlight": in_flight}
        body = {key: value for key, value in fields.items() if value is not None}
        previous: str | None = self._call("POST", f"/lora/v1/adapters/{quote(name, safe='')}/activate", body)["previous"]
        return previous

    def rollback(
        self,
        name: str,
        to: str | int | None = None,
        expect: str | None = None,
        *,
        in_flight: InFlight | None = None,
    ) -> RolledBack:
        """Makes an earlier revision current again, by its digest or step; without one the one before. Asked again it stays."""
        fields = {"to": to, "expectCurrent": expect, "inFlight": in_flight}
        return self._roll_back(f"/lora/v1/adapters/{quote(name, safe='')}/rollback", name, fields)

    def delete(self, name: str, revision: str | None = None) -> Removed:
        """Takes the adapter, or one revision of it, out; what is not there is gone already."""
        path = f"/lora/v1/adapters/{quote(name, safe='')}"
        reply = self._call("DELETE", path if revision is None else f"{path}/revisions/{quote(revision, safe='')}")
        return Removed(name=reply["name"], removed=reply["removed"], leases=reply["leases"])

    def _in_flight_headers(self, in_flight: InFlight | None, wait: Wait) -> dict[str, str]:
        if in_flight is None:
            return {}
        if wait == "active":
            return {"X-Lora-In-Flight": in_flight}
        raise ValueError("A staged revision touches no running request: give in_flight to activate()")

    def _push_route(self, name: str, wait: Wait, expect: str | None) -> tuple[str, str]:
        if wait == "active":
            return "PUT", f"/v1/adapters/{quote(name, safe='')}"
        if expect is not None:
            raise ValueError("A pod compares what is current when it activates: give expect to activate()")
        return "POST", f"/lora/v1/adapters/{quote(name, safe='')}/revisions"


class OperatorClient(_Lorikeet):
    """A whole pool, by the operator's push endpoint; ``name`` is that of a LoraAdapter object."""

    def __init__(
        self,
        url: str,
        namespace: str,
        token: str | None = None,
        *,
        token_file: str | None = None,
        ca_file: str | None = None,
        timeout: float = TIMEOUT_SECONDS,
        retry: Retry | None = None,
    ) -> None:
        super().__init__(url, token, token_file=token_file, ca_file=ca_file, timeout=timeout, retry=retry)
        self._namespace = namespace

    def revisions(self, name: str) -> list[Revision]:
        listed = self._call("GET", f"{self._path(name)}/revisions")["revisions"]
        holders = {pod["name"] for each in listed for pod in each["pods"]}
        return [
            Revision(
                revision=each["revision"],
                step=each["step"],
                bytes=each["bytes"],
                rank=each["rank"],
                current=each["desired"]
                and {pod["name"] for pod in each["pods"] if pod["state"] == "current"} == holders,
                earlier=each.get("earlier"),
                pods=each["pods"],
            )
            for each in listed
        ]

    def rollback(self, name: str, to: str | int | None = None, expect: str | None = None) -> RolledBack:
        """Brings all pods back to an earlier revision, until the next push. As of a pod otherwise: asked again it stays."""
        return self._roll_back(f"{self._path(name)}/rollback", name, {"to": to, "expectCurrent": expect})

    def _in_flight_headers(self, in_flight: InFlight | None, wait: Wait) -> dict[str, str]:
        if in_flight is None:
            return {}
        raise ValueError("spec.update.inFlight of the LoraAdapter says what becomes of running requests")

    def _push_route(self, name: str, wait: Wait, expect: str | None) -> tuple[str, str]:
        return "PUT", f"{self._path(name)}/revisions?wait={wait}"

    def _path(self, name: str) -> str:
        return f"/v1/namespaces/{quote(self._namespace, safe='')}/adapters/{quote(name, safe='')}"


def _place_config(text: str | None) -> tuple[dict[str, str], dict[str, str]]:
    """Headers and metadata of the file; one of them holds the config."""
    if text is None:
        return {}, {}
    header = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    if len(header) > CONFIG_HEADER_CHARACTERS_MAX:
        return {}, {"adapter_config": text}
    return {"X-Lora-Config": header}, {}


def _push_headers(step: int | None, expect: str | None, allow_zero_effect: bool) -> dict[str, str]:
    headers = {}
    if step is not None:
        headers["X-Lora-Step"] = str(step)
    if expect is not None:
        headers["If-Match"] = expect if expect == "*" else f'"{expect}"'
    if allow_zero_effect:
        headers["X-Lora-Allow"] = "zero_effect"
    return headers


def _is_awaited(found: Revision, revision: str | None, min_step: int | None) -> bool:
    if min_step is None:
        return found.revision == revision
    return found.step is not None and found.step >= min_step


def _require_digest(sent: str, held: Any) -> None:
    if sent == held:
        return
    message = f"Sent {sent} but {held} was taken in: did the tensors change while they were sent?"
    raise DigestMismatch("digest_mismatch", message, expected=sent, actual=held)


def _json(answer: Answer) -> dict[str, Any]:
    try:
        value = json.loads(answer.body)
    except ValueError:
        value = None
    if isinstance(value, Mapping):
        return dict(value)
    text = answer.body[:200].decode("utf-8", "replace")
    raise LorikeetError("unexpected_answer", f"Expected JSON but received {text!r}", status=answer.status)
