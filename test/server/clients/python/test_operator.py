import os
import unittest

from lorikeet import InvalidAdapter, NotFound, OperatorClient, PreconditionFailed, StepNotNewer
from proxy import response, saying
from support import AT_ONCE, read_adapter

client = OperatorClient(
    os.environ.get("LORIKEET_OPERATOR", ""),
    "team-a",
    os.environ.get("LORIKEET_OPERATOR_TOKEN", ""),
    retry=AT_ONCE,
    timeout=30,
)


class Operator(unittest.TestCase):
    """One after the other on one adapter: each push has a step above those before."""

    def test_1_takes_a_push_into_all_pods(self):
        pushed = client.push("sql", *read_adapter("sql"), step=1)
        self.assertEqual([pod["name"] for pod in pushed.pods], ["pod-a", "pod-b"])
        self.assertEqual({pod["state"] for pod in pushed.pods}, {"active"})
        self.assertTrue(pushed.everywhere)
        self.assertIn("totalMs", pushed.timings)

    def test_2_takes_the_last_config_where_none_is_given(self):
        tensors, config = read_adapter("sql")
        pushed = client.push("sql", tensors, config, step=2)
        self.assertEqual(client.push("sql", tensors).revision, pushed.revision)

    def test_3_refuses_a_step_that_is_not_newer(self):
        with self.assertRaises(StepNotNewer):
            client.push("sql", *read_adapter("pirate"), step=0)

    def test_4_refuses_where_another_revision_is_current(self):
        with self.assertRaises(PreconditionFailed):
            client.push("sql", *read_adapter("pirate"), expect="sha256:" + "0" * 64)

    def test_5_refuses_another_shape(self):
        tensors, config = read_adapter("sql")
        with self.assertRaises(InvalidAdapter) as raised:
            client.push("sql", tensors, {**config, "r": 4})
        self.assertEqual(raised.exception.code, "rank_mismatch")

    def test_6_refuses_a_name_without_an_object(self):
        with self.assertRaises(NotFound):
            client.push("nobody", *read_adapter("sql"))

    def test_7_lists_what_pods_hold(self):
        listed = client.revisions("sql")
        self.assertEqual({pod["name"] for each in listed for pod in each.pods}, {"pod-a", "pod-b"})

    def test_8_goes_back_and_stays_there_when_asked_again(self):
        before = client.push("sql", *read_adapter("sql"))
        undone = client.push("sql", *read_adapter("pirate"), step=3)
        self.assertIn(before.revision, {each.revision for each in client.revisions("sql") if each.earlier})
        back = client.rollback("sql", expect=undone.revision)
        self.assertEqual((back.revision, back.previous, back.everywhere), (before.revision, undone.revision, True))
        self.assertEqual([pod["name"] for pod in back.pods], ["pod-a", "pod-b"])
        again = client.rollback("sql")
        self.assertEqual((again.revision, again.previous), (before.revision, before.revision))
        self.assertEqual(client.rollback("sql", to=3).revision, undone.revision)

    def test_9_goes_back_only_to_what_is_kept(self):
        with self.assertRaises(NotFound) as raised:
            client.rollback("sql", to=99)
        self.assertEqual(raised.exception.code, "revision_not_found")
        self.assertTrue(all("revision" in kept for kept in raised.exception.expected))

    def test_leaves_running_requests_to_the_spec(self):
        with self.assertRaisesRegex(ValueError, "spec.update.inFlight"):
            client.push("sql", *read_adapter("sql"), in_flight="Migrate")


class Answers(unittest.TestCase):
    def client(self, *answers):
        server = saying(*answers)
        self.addCleanup(server.close)
        return server, OperatorClient(server.url, "team-a", "token", retry=AT_ONCE)

    def test_of_pods_that_lag_say_so(self):
        body = '{"revision": "sha256:1", "step": 1, "pods": [{"name": "a", "state": "staged", "ms": 1}]}'
        server, operator = self.client(response(202, body))
        pushed = operator.push("sql", {"a": ("F32", [1], b"1234")}, wait="staged")
        self.assertFalse(pushed.everywhere)
        self.assertIn("?wait=staged HTTP", server.heads[0])

    def test_of_a_rollback_that_pods_lag_behind_say_so(self):
        body = '{"revision": "sha256:1", "previous": "sha256:2", "step": 1, "pods": []}'
        server, operator = self.client(response(202, body))
        self.assertFalse(operator.rollback("a/b", to=7, expect="sha256:2").everywhere)
        self.assertIn("POST /v1/namespaces/team-a/adapters/a%2Fb/rollback HTTP", server.heads[0])

    def test_name_a_revision_current_only_where_all_pods_have_it(self):
        def listed(state_of_b):
            pods = f'[{{"name": "a", "state": "current"}}, {{"name": "b", "state": "{state_of_b}"}}]'
            fields = f'"revision": "sha256:1", "step": 1, "bytes": 4, "rank": 1, "desired": true, "pods": {pods}'
            return response(200, f'{{"revisions": [{{{fields}}}]}}')

        _, operator = self.client(listed("staged"), listed("current"))
        self.assertEqual([operator.current("sql") is None, operator.current("sql") is None], [True, False])
