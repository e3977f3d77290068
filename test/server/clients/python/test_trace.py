import os
import re
import unittest
from unittest import mock

from lorikeet import Client, InvalidAdapter
from lorikeet.trace import trace_headers
from proxy import Listener, read_request, response
from support import ADMIN, AT_ONCE, TOKEN, read_adapter

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
OTHER = f"00-{'1' * 32}-b7ad6b7169203331-01"


class Trace(unittest.TestCase):
    def test_is_what_the_caller_gives_before_what_the_environment_says(self):
        with mock.patch.dict(os.environ, {"TRACEPARENT": OTHER}):
            self.assertEqual(trace_headers(PARENT), (TRACE, {"traceparent": PARENT}))
            self.assertEqual(trace_headers(None), ("1" * 32, {"traceparent": OTHER}))

    def test_is_made_where_there_is_none_or_none_that_can_be_read(self):
        for said in ("", "nonsense", f"00-{'0' * 32}-b7ad6b7169203331-01", PARENT.upper()):
            with mock.patch.dict(os.environ, {"TRACEPARENT": said}):
                trace_id, headers = trace_headers(None)
                self.assertRegex(headers["traceparent"], rf"^00-{trace_id}-[0-9a-f]{{16}}-00$")
                self.assertNotEqual(trace_headers(None)[0], trace_id)

    def test_is_refused_where_the_caller_gives_a_wrong_one(self):
        for said in ("nonsense", PARENT + "\r\nx: y", PARENT[:-1]):
            with self.assertRaises(ValueError):
                trace_headers(said)

    def test_is_one_for_all_tries_of_a_push(self):
        heads = []

        def serve(connection, index):
            heads.append(read_request(connection)[0].lower())
            if index == 1:
                connection.sendall(response(422, '{"error": {"code": "rank_mismatch", "message": "no"}}'))

        listener = Listener(serve)
        self.addCleanup(listener.close)
        with self.assertRaises(InvalidAdapter):
            Client(listener.url, TOKEN, retry=AT_ONCE, timeout=30).push("traced", *read_adapter("sql"))
        first, second = (re.search(r"traceparent: 00-(\w+)-", head).group(1) for head in heads)
        self.assertEqual(first, second)

    def test_is_told_of_a_push(self):
        client = Client(ADMIN, TOKEN, retry=AT_ONCE, timeout=30)
        self.addCleanup(client.delete, "traced")
        self.assertEqual(client.push("traced", *read_adapter("sql"), traceparent=PARENT).trace_id, TRACE)
