"""
SGLang's server on a machine without a GPU. Its packages are built for CUDA, but all that a small model needs it can do
with PyTorch alone; what it asks of CUDA besides is answered here. Processes that it starts run this file too.
"""

import runpy
import sys
import tempfile
import types

import torch


class Absent(types.ModuleType):
    """Of a package of kernels: can be imported from, and not be called."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def absent(*_args, **_kwargs):
            raise NotImplementedError(f"{self.__name__}.{name} is for a GPU")

        return absent


for kernels in ("sgl_kernel", "cutlass"):
    sys.modules[kernels] = Absent(kernels)


# The paths of its sockets are short; a pod's folder in our tests is long.
tempfile.tempdir = "/var/tmp"


def unpinned(make):
    return lambda *args, pin_memory=False, **more: make(*args, **more)


# Pinned memory is for copies to a GPU.
for name in ("arange", "empty", "empty_like", "full", "ones", "tensor", "zeros"):
    setattr(torch, name, unpinned(getattr(torch, name)))
torch.Tensor.pin_memory = lambda self, *_args: self

if __name__ == "__main__":
    runpy.run_module("sglang.launch_server", run_name="__main__")
