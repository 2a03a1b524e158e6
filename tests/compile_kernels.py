"""Compiles every GPU kernel to PTX for the GPUs of the command line, such as `80 90`, on a machine without one.

What a real solve and backward pass would launch is compiled for the types that it would be launched with, and not run. Three
questions of numba-cuda are answered in a GPU's place: which one it is, which ones NVRTC knows (NVVM alone compiles here), and
where NVRTC is. For each kernel and GPU a line: its name, the GPU, and what `ptxas` says of it where there is one, in the wheel
nvidia-cuda-nvcc or on the PATH, or dashes: registers, bytes of the stack, bytes spilled, bytes of shared memory.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["NUMBA_ENABLE_CUDASIM"] = "0"
sys.path.append(str(Path(__file__).parent / "equations"))

import numba
import torch
from lif_networks import random_lif, random_spikes
from networks import GATES, MEMBRANES, random_network, random_trial
from numba import cuda
from systems import izhikevich, network, synapses

import adjsnn
from adjsnn.equations.cpu.march import DONE, STATUS, STRIDE, Samples
from adjsnn.equations.cuda import run as equations
from adjsnn.gated.cuda import run
from adjsnn.gated.cuda.arguments import Path as Trajectory
from adjsnn.lif.cuda import feedforward_run, recurrent_run, tensors
from adjsnn.numerics import device

ASSEMBLERS = ("cu13/bin/ptxas", "cuda_nvcc/bin/ptxas")  # in wheels of CUDA 13 and 12


def typeof(x: Any) -> Any:
    """The type that a kernel is compiled for where it is given x."""
    if isinstance(x, torch.Tensor):
        return numba.typeof(device._something(x.detach()).numpy())
    if isinstance(x, tuple):
        return numba.types.NamedTuple([typeof(y) for y in x], type(x))
    return numba.typeof(x)


def launches() -> dict[str, tuple[Any, Any]]:
    """The Python function of every kernel that a solve with everything and its backward pass launch, and its types.

    Kernels of gated networks compute in the network's dtype, which their names end in.
    """
    met: dict[str, tuple[Any, Any]] = {}

    def launch(
        kernel: Any, threads: int, where: torch.device, *arguments: Any, width: int | None = None, shared: int = 0
    ) -> None:
        name = f"{kernel.py_func.__module__}.{kernel.py_func.__name__}".removeprefix("adjsnn.").replace(".cuda", "")
        if path := next((x for x in arguments if isinstance(x, Trajectory)), None):
            name = f"{name}.{str(path.v.dtype).removeprefix('torch.')}"
            for x in (*path[:4], *arguments[3]):  # nothing runs: what is looked at afterwards must be sound
                if isinstance(x, torch.Tensor):
                    x.zero_()
            path.crossings.zero_()
            if isinstance(broken := arguments[-1], torch.Tensor):
                broken.fill_(-1)
        signature = numba.types.void(*map(typeof, arguments))
        assert met.setdefault(name, (kernel.py_func, signature))[1] == signature, f"{name} is launched with other types"

    device.SIMULATED, device.unusable = True, lambda: None
    for module in (feedforward_run, recurrent_run, tensors, run):
        module.launch = launch
    u = torch.zeros(4, 3, 5, dtype=torch.float64, requires_grad=True)
    for recurrent, per_synapse in ((False, False), (False, True), (True, False)):
        for options in ({}, {"currents": u, "dt": 10.0}):
            lif = random_lif(5, recurrent=recurrent, per_synapse=per_synapse)
            sol = adjsnn.solve(lif, random_spikes(5), ts=[5.0], kernels="cuda", **options)
            sum(v.nan_to_num().sum() for v in sol.v).backward()
    for dtype in (torch.float32, torch.float64):
        for method in ("euler", "heun", "rk4"):
            net = random_network(MEMBRANES["lif"], GATES["raised_cosine"], seed=7).to(dtype)
            u, _ = random_trial(net, seed=7, steps=4)
            u, y0 = u.detach().to(dtype).requires_grad_(), net.initial_state(3)
            y0 = y0._replace(v=y0.v.requires_grad_())
            leaves = [u, y0.v, *net.parameters()]
            for read in ("readout", "v", "a_fast", "a_slow", "charge"):
                sol = adjsnn.solve(net, u, dt=0.5, y0=y0, kernels="cuda", method=method)
                torch.autograd.grad(getattr(sol, read).sum(), leaves, allow_unused=True)
    return met


def of_equations() -> dict[str, tuple[Any, Any]]:
    """The same for systems of equations, whose kernels have the name of the system behind theirs."""
    met: dict[str, tuple[Any, Any]] = {}
    for make in (izhikevich, network, synapses):

        def launch(kernel: Any, threads: int, where: torch.device, *arguments: Any, of: str = make.__name__) -> None:
            which = kernel.py_func.__name__.partition("_kernel")[0]
            met[f"equations.{which}.{of}"] = kernel.py_func, numba.types.void(*map(typeof, arguments))
            for x in arguments:
                if isinstance(x, Samples):
                    x.whole[:, STATUS], x.whole[:, STRIDE] = DONE, 1

        equations.launch = launch
        case = make(2)
        sol = adjsnn.solve(case.system, case.u, **case.options, y0=case.y0.clone().requires_grad_(), kernels="cuda")
        sol.y.sum().backward()
    return met


def ptx_of(function: Any, signature: Any, capability: tuple[int, int]) -> str:
    """PTX for one kind of GPU."""
    from numba.cuda import cuda_paths, dispatcher  # noqa: PLC0415
    from numba.cuda.cudadrv import nvrtc  # noqa: PLC0415

    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    nvrtc.get_supported_ccs = lambda: (capability,)
    cuda_paths._get_nvrtc_path = lambda: None
    return cuda.compile_ptx(function, signature, cc=capability)[0]


def assembler() -> str | None:
    spec = importlib.util.find_spec("nvidia")
    places = [Path(root) / name for root in (spec.submodule_search_locations if spec else []) or [] for name in ASSEMBLERS]
    return next((str(place) for place in places if place.exists()), shutil.which("ptxas"))


def assembled(ptx: str, architecture: str) -> str:
    """Registers, stack, spills and shared memory."""
    if (program := assembler()) is None:
        return "- - - -"
    command = [program, "-v", f"-arch=sm_{architecture}", "-o", os.devnull, "/dev/stdin"]
    done = subprocess.run(command, input=ptx, capture_output=True, text=True, check=False)
    if done.returncode and "Unsupported .version" in done.stderr:  # older than NVVM
        return "- - - -"
    assert done.returncode == 0, done.stderr
    patterns = (r"Used (\d+) registers", r"(\d+) bytes stack", r"(\d+) bytes spill stores", r"(\d+) bytes smem")
    return " ".join(found[1] if (found := re.search(pattern, done.stderr)) else "0" for pattern in patterns)


if __name__ == "__main__":
    for name, (function, signature) in (launches() | of_equations()).items():
        for architecture in sys.argv[1:]:
            ptx = ptx_of(function, signature, (int(architecture[:-1]), int(architecture[-1])))
            assert f".target sm_{architecture}" in ptx
            assert ptx.count(".entry") == 1
            print(name, architecture, assembled(ptx, architecture), flush=True)
