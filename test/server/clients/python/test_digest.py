import json
import os
import unittest

from lorikeet import InvalidAdapter
from lorikeet.digest import canonical_json


class CanonicalJson(unittest.TestCase):
    def test_is_what_the_server_makes_of_the_same_json(self):
        for text, canonical in json.loads(os.environ["LORIKEET_CANONICAL"]):
            self.assertEqual(canonical_json(json.loads(text)), canonical)

    def test_refuses_what_json_has_not(self):
        for value in (float("nan"), float("inf"), 1 << 53, b"bytes"):
            with self.subTest(value=value), self.assertRaises(InvalidAdapter) as raised:
                canonical_json({"lora_alpha": value})
            self.assertEqual((raised.exception.code, raised.exception.field), ("malformed_config", "lora_alpha"))
