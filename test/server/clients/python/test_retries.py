import dataclasses
import json
import os
import socket
import tempfile
import threading
import unittest

from lorikeet import Busy, Client, InvalidAdapter, LorikeetError, Retry, Unreachable
from proxy import Listener, proxy, response, saying
from support import ADMIN, AT_ONCE, TOKEN, read_adapter

CUT_BYTES = 100_000
STATE = response(200, json.dumps({"adapters": []}))


def refusal(status, code, headers=""):
    return response(status, json.dumps({"error": {"code": code, "message": "no"}}), headers)


class Fixture(unittest.TestCase):
    def listen(self, listener):
        self.addCleanup(listener.close)
        return listener

    def client(self, listener, retry=AT_ONCE, timeout=30):
        return Client(listener.url, TOKEN, retry=retry, timeout=timeout)


class LostConnections(Fixture):
    def setUp(self):
        self.name = self.id().rpartition(".")[2].replace("_", "-")
        self.addCleanup(Client(ADMIN, TOKEN).delete, self.name)

    def test_in_the_middle_of_the_body_are_tried_again(self):
        cutting = self.listen(proxy(ADMIN, lambda index: ("cut", CUT_BYTES) if index == 0 else None))
        pushed = self.client(cutting).push(self.name, *read_adapter("sql"), step=3)
        self.assertEqual((pushed.step, pushed.previous, cutting.connections), (3, None, 2))

    def test_before_the_answer_are_tried_again_and_change_nothing(self):
        muting = self.listen(proxy(ADMIN, lambda index: ("mute",) if index == 0 else None))
        pushed = self.client(muting).push(self.name, *read_adapter("sql"), step=3)
        self.assertEqual((pushed.step, pushed.previous, muting.connections), (3, pushed.revision, 2))

    def test_in_the_middle_of_the_answer_are_tried_again(self):
        server = self.listen(saying(STATE[:-5], STATE))
        self.assertEqual(self.client(server).revisions(self.name), [])

    def test_are_given_up_after_the_last_try(self):
        cutting = self.listen(proxy(ADMIN, lambda index: ("cut", CUT_BYTES)))
        with self.assertRaises(Unreachable):
            self.client(cutting).push(self.name, *read_adapter("sql"))
        self.assertEqual(cutting.connections, AT_ONCE.tries)


class Refusals(Fixture):
    def test_that_pass_are_tried_again_not_before_they_say(self):
        for status, code in ((429, "too_many_requests"), (503, "no_capacity"), (504, "timeout")):
            pauses = []
            server = self.listen(saying(refusal(status, code, "Retry-After: 2\r\n"), STATE))
            retry = Retry(sleep=pauses.append, random=lambda: 0.5, pause_seconds=1)
            self.client(server, retry).revisions("sql")
            self.assertEqual(pauses, [2.5])

    def test_that_do_not_pass_are_not_tried_again(self):
        for status in (400, 404, 409, 412, 422, 500, 502):
            server = self.listen(saying(refusal(status, "malformed_request")))
            with self.subTest(status), self.assertRaises(LorikeetError):
                self.client(server).revisions("sql")
            self.assertEqual(server.connections, 1)

    def test_that_stay_are_told_after_the_last_try(self):
        server = self.listen(saying(refusal(503, "no_pods")))
        with self.assertRaises(Busy) as raised:
            self.client(server).revisions("sql")
        self.assertEqual((raised.exception.code, server.connections), ("no_pods", AT_ONCE.tries))

    def test_are_not_waited_for_beyond_the_timeout(self):
        server = self.listen(saying(refusal(503, "no_pods", "Retry-After: 60\r\n")))
        retry = dataclasses.replace(AT_ONCE, sleep=lambda seconds: self.fail("waited"))
        with self.assertRaises(Busy):
            self.client(server, retry, timeout=5).revisions("sql")

    def test_before_the_last_byte_are_read_and_end_the_body(self):
        def refuse(connection, _index):
            connection.recv(1024)
            connection.sendall(refusal(422, "rank_mismatch"))
            connection.shutdown(socket.SHUT_WR)
            # Takes no more: whoever goes on sending hangs.
            closed.wait(60)

        closed = threading.Event()
        self.addCleanup(closed.set)
        server = self.listen(Listener(refuse))
        tensors = {"a": ("F32", [16 << 20], bytes(64 << 20))}
        with self.assertRaises(InvalidAdapter):
            self.client(server, timeout=10).push("sql", tensors, {})

    def test_of_a_proxy_are_named_by_their_status(self):
        server = self.listen(saying(response(502, "<html>")))
        with self.assertRaises(LorikeetError) as raised:
            self.client(server).revisions("sql")
        self.assertEqual(raised.exception.code, "http_502")


class TokenFile(Fixture):
    def test_is_read_again_at_each_try(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "token")
            tokens = iter(["first", "second"])

            def write(_seconds=0):
                with open(path, "w", encoding="utf-8") as file:
                    file.write(f"{next(tokens)}\n")

            write()
            server = self.listen(saying(refusal(503, "no_pods"), STATE))
            retry = dataclasses.replace(AT_ONCE, sleep=write)
            Client(server.url, token_file=path, retry=retry).revisions("sql")
        sent = [head.partition("Bearer ")[2].partition("\r\n")[0] for head in server.heads]
        self.assertEqual(sent, ["first", "second"])

    def test_that_is_missing_is_told_at_once(self):
        server = self.listen(saying(STATE))
        with self.assertRaises(LorikeetError) as raised:
            Client(server.url, token_file="/nonexistent/token", retry=AT_ONCE).revisions("sql")
        self.assertEqual((raised.exception.code, server.connections), ("token_file", 0))
