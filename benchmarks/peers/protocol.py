"""How a library serves its gradients to `peers.py`: one process that stays alive and answers lines of stdin.

    python SCRIPT --case FILE.npz --dtype float64 --threads 1 --options '{"adjoint": "tape"}'

The problem is a file of arrays and numbers, so that nothing of adjsnn is needed in a peer's environment. A process first says
which versions it runs. Each line "run" is then one gradient, answered with its milliseconds and those of the processor; the
first one includes building and compiling. "save FILE" writes what the latest gradient was: entries named `d_` are derivatives,
the others say what the forward run found. "pull FILE" takes weights from a file, and where it has one a cotangent of the output
neurons' first spike times, for `peers_judged.py`; "save" then writes these times and the derivatives. Every answer is a line of
JSON, and an exception is one too.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np

Results = dict[str, Any]
Run = Callable[[], Results]
Pull = Callable[
    [Any, Any, Any], Results
]  # from two weights and a cotangent of first spikes, or None, to `first` and d_w0, d_w1


class Case:
    """The arrays and numbers of a problem, floating-point ones in the dtype that is asked for."""

    def __init__(self, file: Path, dtype: str, threads: int, options: dict[str, Any]) -> None:
        self.file, self.dtype, self.threads, self.options = file, dtype, threads, options

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.file) as file:
            return {name: array.astype(self.dtype) if array.dtype.kind == "f" else array for name, array in file.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def number(self, name: str) -> float:
        return float(self[name])

    def samples(self) -> int:
        """How many samples this library takes: all, or the first few where it is too slow."""
        return int(self.options.get("samples") or self["samples"])

    def torch(self, torch: Any, *names: str) -> list[Any]:
        """Arrays as tensors, floating-point ones as leaves that require gradients."""
        torch.set_num_threads(self.threads)
        tensors = [torch.from_numpy(self[name].copy()) for name in names]
        return [x.requires_grad_() if x.is_floating_point() else x for x in tensors]


def jax_of(case: Case) -> Any:
    """The module jax, on the CPU and in the dtype of the case."""
    jax = import_module("jax")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", case.dtype == "float64")
    return jax


def by_tape(torch: Any, first: Callable[[list[Any]], Any]) -> Pull:
    """What "pull" asks for, of first spike times (B, N) that are torch's function of the weights, inf where there is none."""

    def pull(w0: Any, w1: Any, cotangent: Any) -> Results:
        weights = [torch.from_numpy(w).requires_grad_(cotangent is not None) for w in (w0, w1)]
        times = first(weights)
        if cotangent is None:
            return {"first": times.detach()}
        there = times.isfinite()
        found = torch.autograd.grad((torch.from_numpy(cotangent)[there] * times[there]).sum(), weights)
        return {"first": times.detach()} | {f"d_w{k}": g for k, g in enumerate(found)}

    return pull


def save(file: str | Path, values: dict[str, Any]) -> None:
    """Tensors of any library, arrays and numbers by name."""
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in values.items()}
    np.savez(file, **arrays)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serves gradients to peers.py.")
    parser.add_argument("--case", type=Path, required=True, help="the file of the problem")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float64")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--options", type=json.loads, default={}, help="JSON, what peers.py says of this row")
    return parser.parse_args()


def serve(packages: Sequence[str], build: Callable[[Case], Run], layer: Callable[[Case], Pull] | None = None) -> None:
    """Build the problem at the first "run" and answer until stdin ends.

    Args:
        packages: whose versions are told.
        build: from the problem a function that takes one gradient, finished when it returns.
        layer: from the problem what answers "pull", of a library whose neurons spike.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to stderr

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    options = arguments()
    case = Case(options.case, options.dtype, options.threads, options.options)
    answer(version=", ".join(f"{name} {metadata.version(name)}" for name in packages))
    run: Run | None = None
    pull: Pull | None = None
    found: Results = {}
    for line in sys.stdin:
        command, _, rest = line.strip().partition(" ")
        try:
            if command == "save":
                save(rest, found)
                answer(saved=rest)
                continue
            if command == "pull" and layer is not None:
                pull = pull or layer(case)
                with np.load(rest) as given:
                    found = pull(given["w0"], given["w1"], given.get("c"))
                answer(pulled=rest)
                continue
            wall, cpu = time.perf_counter(), time.process_time()
            run = run or build(case)
            found = run()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            answer(ms=1e3 * wall, cpu_ms=1e3 * cpu)
        except Exception as error:  # whatever it is, the page says so
            last = str(error).strip().splitlines() or [""]
            answer(error=f"{type(error).__name__}: {last[0]}")
