"""What of adjsnn runs on this machine: versions, threads, compiled loops, GPU, and one gradient of each family, judged."""

import platform
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib import metadata
from typing import Any, NamedTuple

import torch
from torch import Tensor

import adjsnn
from adjsnn.gradcheck.__main__ import built_in
from adjsnn.gradcheck.built_in import LeakyNetwork, initial_states, lif_problem
from adjsnn.numerics.machine import processor
from adjsnn.numerics.threads import loop_threads

NEEDED = ("torch", "numpy", "scipy", "torchdiffeq", "numba", "llvmlite", "jaxtyping")
OPTIONAL = ("numba-cuda", "icc-rt", "intel-cmplr-lib-rt", "matplotlib", "tyro", "safetensors", "scikit-learn", "cma")
OPTIONAL += ("neo", "pynwb", "h5py", "faery", "nir", "distributed", "submitit", "tensorboard")


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        what: is looked at.
        seen: in words.
        well: False where something that should work does not.
    """

    what: str
    seen: str
    well: bool = True

    def __str__(self) -> str:
        return f"{'' if self.well else 'FAULT':>5}  {self.what:<22} {self.seen}"


def doctor() -> list[Finding]:
    """Look at the machine, and solve and differentiate a small network of each family on it.

    Loops that are not kept yet are compiled, which takes up to a minute.
    """
    found = [
        Finding("adjsnn", adjsnn.__version__),
        Finding("python", f"{platform.python_version()}, {sys.executable}"),
        Finding("system", platform.platform()),
        Finding("processor", processor()),
        *(_version(name) for name in NEEDED),
        *(_version(name, needed=False) for name in OPTIONAL),
        Finding("threads", f"{loop_threads()} of compiled loops, {torch.get_num_threads()} of torch"),
        _looked("exponentials", _vectors),
    ]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found += [
            _looked(name, partial(_gradient, name, problem))
            for name, problem in (("gated network", _gated), ("LIF network", _lif), ("own system", _own))
        ]
    kept = [str(x.message) for x in told if issubclass(x.category, adjsnn.KernelCacheWarning)]
    return [*found, _looked("kept loops", lambda: _cache(kept)), _looked("GPU", _gpu)]


def _looked(name: str, look: Callable[[], Finding]) -> Finding:
    """What was found, or why it could not be looked at."""
    try:
        return look()
    except Exception as error:  # of whatever kind, such as a compiler that does not load: the report is about this machine
        return Finding(name, f"{type(error).__name__}: {error}", well=False)


def _version(name: str, *, needed: bool = True) -> Finding:
    try:
        return Finding(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, "not installed", well=not needed)


def _vectors() -> Finding:
    from numba.core import config  # noqa: PLC0415  loads the compiler

    there = bool(getattr(config, "USING_SVML", False))
    return Finding("exponentials", "of Intel's SVML in vectors" if there else "of adjsnn's own polynomials (no SVML is found)")


def _gradient(name: str, problem: Callable[[], tuple[Any, Any, dict[str, Any]]]) -> Finding:
    """A random system of adjsnn.gradcheck, whose gradient every judge is asked about."""
    system, inputs, options = problem()
    sol = adjsnn.solve(system, inputs, **options)
    body = f"{sol.stats.kernel}: {sol.stats.kernel_reason}" if hasattr(sol.stats, "kernel") else "torch operations"
    report = adjsnn.gradcheck(system, inputs, _cost, entries=1, verbose=False, **options)
    worst = max(row.finite_difference or 0.0 for row in report.rows)
    return Finding(name, f"gradient within {worst:.0e} of central differences; body {body}")


def _cost(sol: Any) -> Tensor:
    if isinstance(sol, adjsnn.LIFSolution):
        return sum((sol.spike_times(k).square().mean() / 1e4 for k in range(2)), sol.v[-1].square().mean())
    return sol.readout.square().mean() if isinstance(sol, adjsnn.GatedSolution) else sol.y.square().mean()


def _gated() -> tuple[Any, Any, dict[str, Any]]:
    net, u, y0 = built_in("qif", "raised_cosine", 12, 200, 4, 0)
    return net, u, {"dt": 0.5, "y0": y0}


def _lif() -> tuple[Any, Any, dict[str, Any]]:
    lif, x = lif_problem(12, 4, 60.0)
    return lif, x, {"t_end": 60.0, "ts": [60.0]}


def _own() -> tuple[Any, Any, dict[str, Any]]:
    ts = torch.linspace(0.0, 20.0, 3, dtype=torch.float64)
    return LeakyNetwork(4), None, {"ts": ts, "method": "dopri5", "y0": initial_states(2, 4)}


def _cache(told: list[str]) -> Finding:
    from adjsnn.numerics.compiled import folders  # noqa: PLC0415  loads the compiler

    if told:
        return Finding("kept loops", told[0], well=False)
    return Finding("kept loops", ", ".join(str(folder) for folder in folders("adjsnn.lif.cpu") if folder.exists()) or "none")


def _gpu() -> Finding:
    from adjsnn.numerics.gpu import obstacle  # noqa: PLC0415  loads the compiler

    if not torch.cuda.is_available():
        return Finding("GPU", f"none that torch {torch.__version__} can use")
    why = obstacle(torch.device("cuda"))
    return Finding("GPU", f"{torch.cuda.get_device_name()}; " + (f"no loops: {why}" if why else "with loops"))
