import enum
import json
import sys
import types
import unittest
import urllib.request
from unittest import mock

from lorikeet import Client, LorikeetError, NotFound, NotYet
from lorikeet.client import _place_config
from proxy import response, saying
from support import ADMIN, AT_ONCE, TOKEN, Torch, read_adapter, read_files, say

client = Client(ADMIN, TOKEN, retry=AT_ONCE, timeout=30)


def push_file(name, adapter):
    data, config = read_files(adapter)
    headers = _place_config(json.dumps(config))[0]
    headers |= {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/octet-stream"}
    request = urllib.request.Request(f"{ADMIN}/v1/adapters/{name}", data, headers, method="PUT")
    with urllib.request.urlopen(request, timeout=30):
        pass


class Push(unittest.TestCase):
    def setUp(self):
        self.name = f"trl/{self.id().rpartition('.')[2]}".replace("_", "-")
        self.addCleanup(client.delete, self.name)

    def test_from_memory_answers_as_the_file_does(self):
        push_file("from-file", "pirate")
        self.addCleanup(client.delete, "from-file")
        pushed = client.push(self.name, *read_adapter("pirate"), step=1)
        text, revision = say(self.name)
        self.assertEqual(text, say("from-file")[0])
        self.assertEqual(revision, pushed.revision)

    def test_of_every_dtype_is_taken(self):
        for adapter in ("rank-64-bf16", "rank-1-f16", "sql"):
            with self.subTest(adapter):
                client.push(self.name, *read_adapter(adapter))

    def test_of_torch_tensors_is_the_revision_of_their_bytes(self):
        tensors, config = read_adapter("rank-64-bf16")
        on_gpu = {name: Torch(*tensor, device="cuda") for name, tensor in tensors.items()}
        raw = client.push(self.name, tensors, config)
        self.assertEqual(client.push(self.name, on_gpu, config).revision, raw.revision)

    def test_says_what_it_made_of_it(self):
        tensors, config = read_adapter("sql")
        first = client.push(self.name, tensors, config, step=7)
        second = client.push(self.name, *read_adapter("pirate"), step=8)
        self.assertEqual((first.name, first.step, first.previous, first.everywhere), (self.name, 7, None, True))
        self.assertEqual(second.previous, first.revision)
        self.assertIn("receiveMs", first.timings)

    def test_says_what_the_next_sampling_call_expects(self):
        pushed = client.push(self.name, *read_adapter("sql"))
        self.assertEqual(pushed.expect, {"lora": {"expect": {"revision": pushed.revision}}})

    def test_with_a_config_too_long_for_a_header_puts_it_into_the_file(self):
        tensors, config = read_adapter("sql")
        pushed = client.push(self.name, tensors, {**config, "base_model_name_or_path": "x" * 40_000})
        self.assertEqual(client.current(self.name).revision, pushed.revision)

    def test_of_a_peft_model_takes_its_active_adapter_and_config(self):
        tensors, config = read_adapter("sql")
        peft = types.ModuleType("peft")
        peft.get_peft_model_state_dict = lambda model, adapter_name: model.adapters[adapter_name]
        PeftType = enum.Enum("PeftType", {"LORA": "LORA"})

        class LoraConfig:
            def to_dict(self):
                own = {"peft_type": PeftType.LORA, "target_modules": set(config["target_modules"])}
                return {**config, **own, "inference_mode": False}

        class Model:
            active_adapter = "policy"
            adapters = {"policy": tensors}
            peft_config = {"policy": LoraConfig()}

        with mock.patch.dict(sys.modules, peft=peft):
            pushed = client.push(self.name, Model())
        self.assertEqual(pushed.revision, client.push(self.name, tensors, config).revision)


class InFlight(unittest.TestCase):
    def test_is_asked_of_the_pod(self):
        server = saying(response(200, '{"revision": "sha256:1"}'))
        self.addCleanup(server.close)
        tensors = {"a": ("F32", [1], b"1234")}
        Client(server.url, TOKEN, retry=AT_ONCE).push("policy", tensors, in_flight="Migrate")
        self.assertIn("x-lora-in-flight: migrate", server.heads[0].lower())

    def test_that_the_pod_does_not_know_is_refused(self):
        with self.assertRaises(LorikeetError) as raised:
            client.push("policy", *read_adapter("sql"), in_flight="Never")
        self.assertEqual(raised.exception.field, "x-lora-in-flight")

    def test_is_nothing_where_a_push_is_only_staged(self):
        with self.assertRaisesRegex(ValueError, "activate"):
            client.push("policy", *read_adapter("sql"), wait="staged", in_flight="Migrate")


class Revisions(unittest.TestCase):
    def setUp(self):
        self.name = self.id().rpartition(".")[2].replace("_", "-")
        self.addCleanup(client.delete, self.name)
        self.first = client.push(self.name, *read_adapter("sql"), step=1)

    def test_lists_what_the_pod_holds(self):
        staged = client.push(self.name, *read_adapter("pirate"), step=2, wait="staged")
        listed = {each.revision: (each.step, each.current) for each in client.revisions(self.name)}
        self.assertEqual(listed, {self.first.revision: (1, True), staged.revision: (2, False)})

    def test_of_an_unknown_name_are_none(self):
        self.assertEqual((client.revisions("nobody"), client.current("nobody")), ([], None))

    def test_can_be_made_current_again(self):
        second = client.push(self.name, *read_adapter("pirate"), step=2)
        back = client.activate(self.name, self.first.revision, in_flight="Migrate")
        self.assertEqual(back, second.revision)
        self.assertEqual(say(self.name)[1], self.first.revision)

    def test_can_be_gone_back_to(self):
        second = client.push(self.name, *read_adapter("pirate"), step=2)
        back = client.rollback(self.name, expect=second.revision, in_flight="Migrate")
        self.assertEqual((back.revision, back.previous, back.everywhere), (self.first.revision, second.revision, True))
        self.assertEqual(client.rollback(self.name).revision, self.first.revision)
        self.assertEqual(client.rollback(self.name, to=2).revision, second.revision)

    def test_can_be_waited_for_by_revision_and_by_step(self):
        self.assertEqual(client.wait(self.name, revision=self.first.revision).step, 1)
        self.assertEqual(client.wait(self.name, min_step=1).revision, self.first.revision)

    def test_that_do_not_come_end_the_wait(self):
        with self.assertRaises(NotYet) as raised:
            client.wait(self.name, min_step=2, timeout=0.05)
        self.assertEqual(raised.exception.actual, self.first.revision)

    def test_can_be_deleted(self):
        self.assertEqual(client.delete(self.name).removed, [self.first.revision])
        self.assertEqual(client.revisions(self.name), [])

    def test_that_are_unknown_cannot_be_made_current(self):
        with self.assertRaises(NotFound) as raised:
            client.activate(self.name, "sha256:" + "0" * 64)
        self.assertEqual((raised.exception.status, raised.exception.code), (404, "revision_not_found"))
