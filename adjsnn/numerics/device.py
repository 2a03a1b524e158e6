"""The one place where tensors, numba's GPU code and torch's stream meet; under numba's simulator tensors are the CPU's."""

import warnings
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from numba.core import config
from torch import Tensor

_CONFIG: Any = config  # its attributes come from the environment
SIMULATED = bool(_CONFIG.ENABLE_CUDASIM)


class _Simulator:
    """numba.cuda, or in a kernel what that is there.

    The simulator itself exchanges the name `cuda` in a function's module for the time of a call, for all threads at once: who
    returns from a function of another module than the kernel's takes it from those who are still in there.
    """

    def __getattr__(self, name: str) -> Any:
        running = import_module("numba.cuda.simulator.kernel")._get_kernel_context()
        return getattr(import_module("numba.cuda") if running is None else running, name)


cuda: Any = _Simulator() if SIMULATED else import_module("numba.cuda")  # type checkers misread it
THREADS = 128  # of a block: a multiple of 32, and few enough for some 100 registers each


@lru_cache(maxsize=1)
def unusable() -> str | None:
    """Why numba cannot run code on the machine's GPU, or None where it can; asked of the driver once."""
    if SIMULATED:
        return None
    if find_spec("numba_cuda") is None:
        kind = (torch.version.cuda or "13").partition(".")[0]
        return f'numba-cuda is not installed (pip install "numba-cuda[cu{kind}]", or "adjsnn[cuda]" for CUDA 13)'
    if not cuda.is_available():
        return "numba-cuda finds no GPU that it can use"
    return None


def launch(kernel: Any, threads: int, device: torch.device, *arguments: Any, width: int | None = None, shared: int = 0) -> None:
    """Run a kernel after what stands on torch's current stream of the device, without waiting for it.

    Args:
        kernel: made by `cuda.jit`.
        threads: how many of it.
        device: of all tensors.
        arguments: numbers and contiguous tensors, in named tuples or alone; tensors are passed on without a copy.
        width: threads of a block, of which there are then only whole ones; None where it does not matter.
        shared: bytes of memory that the threads of a block share, beside what the kernel itself declares.
    """
    if not threads:
        return
    if SIMULATED:  # a thread of the host each, so none in vain
        width = width or min(threads, THREADS)
        kernel[(threads + width - 1) // width, width, 0, shared](*map(_host, arguments))
        return
    width = width or THREADS
    with torch.cuda.device(device), cuda.gpus[torch.cuda.current_device()]:
        stream = torch.cuda.current_stream(device).cuda_stream
        with warnings.catch_warnings():  # a small network fills no GPU, and knows
            warnings.filterwarnings("ignore", message="Grid size")  # numba and numba-cuda have a class of their own each
            blocks = (threads + width - 1) // width
            configured = kernel[blocks, width, cuda.external_stream(stream) if stream else 0, shared]
        configured(*map(_on_device, arguments))


def _on_device(x: Any) -> Any:
    if isinstance(x, Tensor):
        return cuda.as_cuda_array(_something(x), sync=False)  # on torch's stream already
    return type(x)(*map(_on_device, x)) if isinstance(x, tuple) else x


def _host(x: Any) -> Any:
    if isinstance(x, Tensor):
        return _something(x).numpy()
    return type(x)(*map(_host, x)) if isinstance(x, tuple) else x


def _something(x: Tensor) -> Tensor:
    """x, or what a kernel never reads in its place where it is empty: there is no address of nothing."""
    assert x.is_contiguous(), x.stride()  # kernels are compiled for no other
    return x if x.numel() else x.new_zeros([max(1, n) for n in x.shape])
