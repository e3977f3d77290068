import unittest

from lorikeet import (
    Client,
    DigestMismatch,
    InvalidAdapter,
    NotAllowed,
    PreconditionFailed,
    StepNotNewer,
    ZeroEffect,
)
from proxy import proxy
from support import ADMIN, AT_ONCE, TOKEN, read_adapter

client = Client(ADMIN, TOKEN, retry=AT_ONCE, timeout=30)
OTHER = "sha256:" + "0" * 64


class Refusals(unittest.TestCase):
    def setUp(self):
        self.name = self.id().rpartition(".")[2].replace("_", "-")
        self.addCleanup(client.delete, self.name)
        self.tensors, self.config = read_adapter("sql")

    def test_a_step_that_is_not_newer(self):
        client.push(self.name, self.tensors, self.config, step=5)
        with self.assertRaises(StepNotNewer) as raised:
            client.push(self.name, *read_adapter("pirate"), step=5)
        self.assertEqual((raised.exception.status, raised.exception.actual), (409, 5))

    def test_the_same_tensors_and_step_again_are_taken(self):
        pushed = client.push(self.name, self.tensors, self.config, step=5)
        self.assertEqual(client.push(self.name, self.tensors, self.config, step=5).previous, pushed.revision)

    def test_another_revision_than_expected(self):
        pushed = client.push(self.name, self.tensors, self.config)
        with self.assertRaises(PreconditionFailed) as raised:
            client.push(self.name, *read_adapter("pirate"), expect=OTHER)
        self.assertEqual((raised.exception.expected, raised.exception.actual), (OTHER, pushed.revision))

    def test_the_expected_revision_is_followed(self):
        pushed = client.push(self.name, self.tensors, self.config)
        after = client.push(self.name, *read_adapter("pirate"), expect=pushed.revision)
        self.assertEqual(after.previous, pushed.revision)

    def test_another_token(self):
        with self.assertRaises(NotAllowed) as raised:
            Client(ADMIN, "wrong", retry=AT_ONCE).revisions(self.name)
        self.assertEqual(raised.exception.status, 401)

    def test_a_rank_that_is_not_the_configs(self):
        with self.assertRaises(InvalidAdapter) as raised:
            client.push(self.name, self.tensors, {**self.config, "r": 4})
        self.assertEqual((raised.exception.status, raised.exception.code), (422, "rank_mismatch"))
        self.assertEqual(raised.exception.actual, 8)
        self.assertRegex(raised.exception.field, "lora_A")

    def test_no_config(self):
        with self.assertRaises(InvalidAdapter) as raised:
            client.push(self.name, self.tensors)
        self.assertEqual(raised.exception.code, "missing_config")

    def test_tensors_without_effect(self):
        with self.assertRaises(ZeroEffect):
            client.push(self.name, self.zeros(), self.config)

    def test_tensors_without_effect_that_are_meant(self):
        pushed = client.push(self.name, self.zeros(), self.config, allow_zero_effect=True)
        self.assertEqual(client.current(self.name).revision, pushed.revision)

    def test_bytes_that_changed_on_the_way(self):
        size = sum(len(tensor[2]) for tensor in self.tensors.values())
        flipping = proxy(ADMIN, lambda index: ("flip", size))
        self.addCleanup(flipping.close)
        with self.assertRaises(DigestMismatch):
            Client(flipping.url, TOKEN, retry=AT_ONCE, timeout=30).push(self.name, self.tensors, self.config)

    def zeros(self):
        return {
            name: (dtype, shape, bytes(len(data)) if "lora_B" in name else data)
            for name, (dtype, shape, data) in self.tensors.items()
        }
