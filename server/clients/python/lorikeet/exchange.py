"""One request and its answer over HTTP, and when it is tried again."""

from __future__ import annotations

import hashlib
import http.client
import selectors
import ssl
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from .errors import LorikeetError, Unreachable, refusal
from .retry import Deadline, Retry
from .safetensors import Body

ANSWER_BYTES_MAX = 1 << 26
RETRY_AFTER_SECONDS_MAX = 60
PASSING = (429, 503, 504)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: Body | bytes = b""


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    retry_after: float
    #: Of the body that was sent.
    sha256: str


class _Passing(Exception):
    """Worth another try; ``error`` is what to say if there is none."""

    def __init__(self, error: LorikeetError, retry_after: float = 0) -> None:
        self.error = error
        self.retry_after = retry_after


class Exchange:
    """Keeps no connection: may be used by several threads."""

    def __init__(
        self, url: str, *, token: str | None, token_file: str | None, ca_file: str | None, retry: Retry
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"Expected an http or https URL but received {url!r}")
        if token is not None and token_file is not None:
            raise ValueError("Expected token or token_file but received both")
        self._host, self._port, self._base = parts.hostname, parts.port, parts.path.rstrip("/")
        self._token, self._token_file, self._retry = token, token_file, retry
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None

    def call(self, request: Request, timeout: float) -> Answer:
        """A 2xx answer; every other raises what it says. ``timeout`` is for all tries together."""
        deadline = Deadline(timeout)
        failures = 0
        while True:
            try:
                return self._try(request, deadline)
            except _Passing as passing:
                failures += 1
                pause = self._retry.pause(failures, passing.retry_after)
                if failures >= self._retry.tries or not deadline.allows(pause):
                    raise passing.error from passing.__cause__
                self._retry.sleep(pause)

    def _try(self, request: Request, deadline: Deadline) -> Answer:
        try:
            answer = self._exchange(request, deadline)
        except ssl.SSLCertVerificationError as error:
            raise Unreachable("certificate", str(error)) from error
        except (OSError, http.client.HTTPException) as error:
            lost = Unreachable("unreachable", f"{self._host}: {type(error).__name__}: {error}")
            raise _Passing(lost) from error
        if 200 <= answer.status < 300:
            return answer
        refused = refusal(answer.status, answer.body)
        if answer.status in PASSING:
            raise _Passing(refused, answer.retry_after)
        raise refused

    def _exchange(self, request: Request, deadline: Deadline) -> Answer:
        # Read before anything else: a missing token file is the caller's fault, not a lost connection.
        headers = {**request.headers, **self._authorization()}
        connection = self._connect(deadline.left())
        try:
            connection.connect()
            connection.putrequest(request.method, self._base + request.path)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            sending = _Sending(connection, deadline)
            sending.send(request.body)
            return _read_answer(connection, sending, deadline)
        finally:
            connection.close()

    def _authorization(self) -> dict[str, str]:
        token = self._token
        if self._token_file is not None:
            # At each try: tokens of pods are exchanged every hour.
            try:
                with open(self._token_file, encoding="utf-8") as file:
                    token = file.read().strip()
            except OSError as error:
                raise LorikeetError("token_file", f"The token file cannot be read: {error}") from error
        return {"Connection": "close"} if token is None else {"Connection": "close", "Authorization": f"Bearer {token}"}

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=self._tls)


class _Sending:
    """Sends a body as long as nobody objects: a refusal may come long before the last byte, and then the rest is in vain."""

    def __init__(self, connection: http.client.HTTPConnection, deadline: Deadline) -> None:
        self._sock = connection.sock
        self._deadline = deadline
        self._hash = hashlib.sha256()
        self.complete = False
        self.error: OSError | None = None

    def send(self, body: Body | bytes) -> None:
        blocks = body.blocks() if isinstance(body, Body) else [memoryview(body)]
        # Not select(), which knows no descriptor above 1023: trainers have many files open.
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
            try:
                self.complete = all(self._send_block(block, selector) for block in blocks)
            except (BrokenPipeError, ConnectionResetError) as error:
                # The answer may lie in the socket still.
                self.error = error

    def sha256(self) -> str:
        return self._hash.hexdigest()

    def _send_block(self, block: memoryview, selector: selectors.BaseSelector) -> bool:
        """False where the answer came first."""
        self._hash.update(block)
        while block:
            left = self._deadline.left()
            events = next((mask for _, mask in selector.select(left)), 0)
            # What can be read of a TLS connection may be a session ticket.
            if events & selectors.EVENT_READ and not isinstance(self._sock, ssl.SSLSocket):
                return False
            if events & selectors.EVENT_WRITE:
                self._sock.settimeout(left)
                block = block[self._sock.send(block) :]
        return True


def _read_answer(connection: http.client.HTTPConnection, sending: _Sending, deadline: Deadline) -> Answer:
    connection.sock.settimeout(deadline.left())
    try:
        response = connection.getresponse()
        body = response.read(ANSWER_BYTES_MAX)
    except (OSError, http.client.HTTPException) as error:
        raise sending.error or error
    # Where the connection breaks off, read() returns what there was.
    if response.length:
        raise http.client.IncompleteRead(body, response.length)
    if response.status < 300 and not sending.complete:
        raise http.client.BadStatusLine("a good answer to half a body")
    return Answer(response.status, body, _retry_after(response), sending.sha256())


def _retry_after(response: http.client.HTTPResponse) -> float:
    value = response.getheader("retry-after", "")
    return min(int(value), RETRY_AFTER_SECONDS_MAX) if value.isdecimal() else 0
