import array
import json
import unittest

from lorikeet import InvalidAdapter
from lorikeet.safetensors import Body
from lorikeet.tensors import view_tensors
from support import Torch

F32 = array.array("f", [1, 2, 3, 4, 5, 6])
BF16 = bytes.fromhex("803f0040404080400140")  # 1, 2, 3, 4, and one bit above 2
RAW = F32.tobytes()


def write(tensors, metadata=None):
    return b"".join(Body(view_tensors(tensors), metadata).blocks())


def header(file):
    end = 8 + int.from_bytes(file[:8], "little")
    return json.loads(file[8:end]), file[end:]


class Format(unittest.TestCase):
    def test_has_an_aligned_header_then_wide_tensors_before_narrow_ones_by_name(self):
        file = write({"b": ("BF16", [5], BF16), "c": ("F32", [2, 3], F32), "a": ("BF16", [5, 1], BF16)})
        entries, data = header(file)
        self.assertEqual(int.from_bytes(file[:8], "little") % 8, 0)
        self.assertEqual(
            entries,
            {
                "c": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
                "a": {"dtype": "BF16", "shape": [5, 1], "data_offsets": [24, 34]},
                "b": {"dtype": "BF16", "shape": [5], "data_offsets": [34, 44]},
            },
        )
        self.assertEqual(data, RAW + BF16 + BF16)

    def test_announces_the_bytes_that_it_sends(self):
        body = Body(view_tensors({"a": ("F32", [6], F32)}), {"format": "pt"})
        self.assertEqual(body.nbytes, sum(block.nbytes for block in body.blocks()))

    def test_holds_no_copy_of_a_buffer(self):
        memory = bytearray(RAW)
        blocks = list(Body(view_tensors({"a": ("F32", [6], memory)})).blocks())
        memory[0] ^= 1
        self.assertEqual(bytes(blocks[1]), bytes(memory))


class TorchTensors(unittest.TestCase):
    def test_of_bfloat16_are_sent_bit_for_bit(self):
        entries, data = header(write({"a": Torch("BF16", [5], BF16)}))
        self.assertEqual((entries["a"]["dtype"], data), ("BF16", BF16))

    def test_that_are_transposed_are_sent_row_by_row(self):
        self.assertEqual(header(write({"a": Torch("F32", [2, 3], RAW, transposed=True)}))[1], RAW)

    def test_of_a_gpu_are_copied_first(self):
        self.assertEqual(header(write({"a": Torch("F32", [2, 3], RAW, device="cuda")}))[1], RAW)

    def test_without_data_are_refused(self):
        with self.assertRaises(InvalidAdapter):
            write({"a": Torch("F32", [6], RAW, device="meta")})

    def test_that_are_shards_are_refused(self):
        shard = Torch("F32", [6], RAW)
        shard.full_tensor = lambda: self.fail("a collective call on one rank")
        with self.assertRaises(InvalidAdapter):
            write({"a": shard})


class NumpyArrays(unittest.TestCase):
    def setUp(self):
        try:
            import numpy
        except ImportError:
            self.skipTest("numpy is not installed")
        self.array = numpy.array([[1, 2, 3], [4, 5, 6]], dtype="float32")

    def test_are_sent_row_by_row_whatever_their_order(self):
        self.assertEqual(header(write({"a": self.array.T.copy().T}))[1], RAW)

    def test_of_the_other_byte_order_are_swapped(self):
        self.assertEqual(header(write({"a": self.array.astype(">f4")}))[1], RAW)

    def test_are_not_copied_where_they_lie_right(self):
        view = view_tensors({"a": self.array})[0].read()
        self.array[0, 0] = 9
        self.assertEqual(bytes(view), self.array.tobytes())


class Refusals(unittest.TestCase):
    def test_name_the_tensor_and_what_it_is(self):
        cases = {
            "unsupported_dtype": ("F64", [3], RAW),
            "shape_mismatch": ("F32", [7], RAW),
            "malformed_safetensors": [1.0, 2.0],
        }
        for code, tensor in cases.items():
            with self.subTest(code), self.assertRaises(InvalidAdapter) as raised:
                write({"layer.lora_A": tensor})
            self.assertEqual((raised.exception.code, raised.exception.field), (code, "layer.lora_A"))

    def test_say_that_there_are_no_tensors(self):
        with self.assertRaises(InvalidAdapter) as raised:
            write({})
        self.assertEqual(raised.exception.code, "no_modules")
