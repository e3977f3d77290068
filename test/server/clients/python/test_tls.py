import json
import os
import shutil
import ssl
import subprocess
import tempfile
import unittest

from lorikeet import Client, InvalidAdapter, Unreachable
from proxy import Listener, read_request, response
from support import AT_ONCE

STATE = response(200, json.dumps({"adapters": []}))
REFUSAL = response(422, json.dumps({"error": {"code": "rank_mismatch", "message": "no"}}))
MAKE_CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost"
    " -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
)


class Tls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if shutil.which("openssl") is None:
            raise unittest.SkipTest("openssl is not installed")
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        subprocess.run(MAKE_CERTIFICATE.split(), cwd=folder.name, check=True, capture_output=True)
        cls.certificate = os.path.join(folder.name, "cert.pem")
        cls.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        cls.context.load_cert_chain(cls.certificate, os.path.join(folder.name, "key.pem"))

    def listen(self, answer):
        def serve(connection, _index):
            with self.context.wrap_socket(connection, server_side=True) as secure:
                read_request(secure)
                secure.sendall(answer)

        server = Listener(serve)
        self.addCleanup(server.close)
        server.url = server.url.replace("http://", "https://")
        return server

    def test_by_the_ca_file_is_trusted(self):
        client = Client(self.listen(STATE).url, "token", ca_file=self.certificate, retry=AT_ONCE)
        self.assertEqual(client.revisions("sql"), [])

    def test_carries_a_body_larger_than_a_record(self):
        client = Client(self.listen(REFUSAL).url, "token", ca_file=self.certificate, retry=AT_ONCE)
        with self.assertRaises(InvalidAdapter):
            client.push("sql", {"a": ("F32", [1 << 20], bytes(4 << 20))}, {})

    def test_of_a_stranger_is_refused_once(self):
        server = self.listen(STATE)
        with self.assertRaises(Unreachable) as raised:
            Client(server.url, "token", retry=AT_ONCE).revisions("sql")
        self.assertEqual((raised.exception.code, server.connections), ("certificate", 1))
