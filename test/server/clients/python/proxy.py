"""Servers of the worst kind: a proxy that spoils connections, and one that says what it is told to."""

import contextlib
import socket
import threading


class Listener:
    """Serves each connection in a thread; ``serve(connection, index)`` counts from 0."""

    def __init__(self, serve):
        self.connections = 0
        self._serve = serve
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.connections += 1
                threading.Thread(target=self._run, args=(connection, self.connections - 1), daemon=True).start()

    def _run(self, connection, index):
        with connection, contextlib.suppress(OSError):
            self._serve(connection, index)

    def close(self):
        self._socket.close()


def proxy(target, spoil):
    """``spoil(index)`` says what happens to a connection: ("cut", bytes), ("mute",), ("flip", bytes) or None."""
    host, _, port = target.removeprefix("http://").partition(":")

    def serve(client, index):
        fault = spoil(index)
        with socket.create_connection((host, int(port))) as server:
            back = threading.Thread(target=_answer, args=(server, client, fault), daemon=True)
            back.start()
            passed = 0
            while block := client.recv(65536):
                if fault and fault[0] == "cut" and passed + len(block) > fault[1]:
                    return
                if fault and fault[0] == "flip" and passed <= fault[1] < passed + len(block):
                    at = fault[1] - passed
                    block = block[:at] + bytes([block[at] ^ 1]) + block[at + 1 :]
                passed += len(block)
                server.sendall(block)

    return Listener(serve)


def _answer(server, client, fault):
    with contextlib.suppress(OSError):
        while block := server.recv(65536):
            if fault and fault[0] == "mute":
                break
            client.sendall(block)
        client.shutdown(socket.SHUT_RDWR)


def read_request(connection):
    """The head and the whole body of one request."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while len(body) < sum(lengths):
        body += connection.recv(65536)
    return head.decode(), body


def response(status, body, headers=""):
    data = body.encode()
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n{headers}\r\n".encode() + data


def saying(*answers):
    """The n-th request gets the n-th answer, later ones the last."""
    heads = []

    def serve(connection, index):
        heads.append(read_request(connection)[0])
        connection.sendall(answers[min(index, len(answers) - 1)])

    listener = Listener(serve)
    listener.heads = heads
    return listener
