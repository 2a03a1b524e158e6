"""Compile loops before their first use, several at a time: after an installation, in a container, before an array of jobs.

Machine code depends on the kind of a network and on dtypes, not on sizes, and is kept on disk. So the smallest network of each
kind, solved once with its gradient, leaves what all networks of that kind will find.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import torch

import adjsnn
from adjsnn.checks import Count, count
from adjsnn.errors import ConfigurationError


class Compiled(NamedTuple):
    """What became of the loops of one kind of network.

    Attributes:
        kind: its name.
        seconds: that a first solve and gradient took, of CPU time.
        new: whether there was something to compile.
        fault: why nothing is kept, or what failed; "" where all is well.
    """

    kind: str
    seconds: float
    new: bool
    fault: str = ""

    def __str__(self) -> str:
        done = self.fault or ("compiled" if self.new else "kept already")
        return f"{'FAULT' if self.fault else '':>5}  {self.kind:<28} {self.seconds:6.1f} s  {done}"


def _gated(method: str, dtype: torch.dtype) -> None:
    net = adjsnn.GatedSynapseNetwork(1, 2, 1, dtype=dtype)
    sol = adjsnn.solve(net, torch.ones(3, 1, 1, dtype=dtype), dt=0.1, method=method)
    sol.readout.sum().backward()
    _ = sol.a_fast, sol.spike_charge  # of Euler steps by loops of their own


def _lif(dt: float | None = None, adjoint: Any = None, **options: Any) -> None:
    f64 = torch.float64
    net = adjsnn.LIFNetwork(1, 2, bias=2.0, learn=("bias", *(("tau_mem",) if dt is None else ())), dtype=f64, **options)
    u = torch.zeros(1 if dt is None else 4, 1, 1, dtype=f64)
    sol = adjsnn.solve(net, u, dt=50.0 if dt is None else dt, adjoint=adjoint)
    (sol.spike_times() if dt is None else sol.voltage_max(-1)).sum().backward()


def _clocked() -> None:
    from adjsnn.rules import SurrogateBPTT  # noqa: PLC0415  of all rules the one that most others build on

    _lif(1.0, SurrogateBPTT())


ADAPTS: dict[str, Any] = {"tau_adapt": [9.0], "jump_adapt": [-0.1]}
OWN = torch.tensor([20.0, 21.0], dtype=torch.float64)  # a time constant for each neuron
KINDS: dict[str, Callable[[], None]] = {  # those that take longest first
    "adaptive": partial(_lif, **ADAPTS),
    "adaptive-own-tau": partial(_lif, tau_mem=OWN, **ADAPTS),
    "lif-feedforward-own-tau": partial(_lif, tau_mem=OWN),
    "lif-feedforward": _lif,
    "lif-recurrent-own-tau": partial(_lif, tau_mem=OWN, recurrent=True),
    "lif-recurrent": partial(_lif, recurrent=True),
    "lif-feedforward-delays": partial(_lif, delays=torch.ones(2, 1, dtype=torch.float64)),  # of each synapse
    "clocked": _clocked,
} | {
    f"gated-{method}-{str(dtype).removeprefix('torch.')}": partial(_gated, method, dtype)
    for dtype in (torch.float32, torch.float64)
    for method in ("rk4", "heun", "euler")
}


def compile_ahead(kinds: Sequence[str] = (), parallel: Count | None = None) -> Iterator[Compiled]:
    """Compile the loops of some kinds of networks in processes of their own, and keep them; yields each as it is done.

    Args:
        kinds: names of KINDS, or how such names begin; all of them where there are none.
        parallel: processes at a time, default one for each CPU; each takes some 400 MB.

    Raises:
        ConfigurationError: a name that no kind begins with, or no process.
    """
    wanted = [kind for kind in KINDS if not kinds or any(kind.startswith(given) for given in kinds)]
    for given in kinds:
        if not any(kind.startswith(given) for kind in KINDS):
            raise ConfigurationError(f"kind {given!r}", f"one of {', '.join(KINDS)}, or how they begin", "adjsnn compile")
    processes = min(count("parallel", os.cpu_count() or 1 if parallel is None else parallel, 1), len(wanted))
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    done: queue.SimpleQueue[Compiled] = queue.SimpleQueue()
    for kind in wanted:
        waiting.put(kind)
    workers = [_start() for _ in range(processes)]
    try:
        for place in range(processes):
            threading.Thread(target=_feed, args=(workers, place, waiting, done), daemon=True).start()
        for _ in wanted:
            yield done.get()
    finally:
        with suppress(queue.Empty):
            while True:  # so that none is started for what nobody waits for
                waiting.get_nowait()
        for worker in workers:
            worker.kill()
            worker.communicate()


def _start() -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-m", "adjsnn.ahead"], stdin=-1, stdout=-1, text=True)


def _feed(
    workers: "list[subprocess.Popen[str]]", place: int, waiting: "queue.SimpleQueue[str]", done: "queue.SimpleQueue[Compiled]"
) -> None:
    """Give the worker in a place one kind after the other, as long as there are any; where it was killed, a new one."""
    while True:
        try:
            kind = waiting.get_nowait()
        except queue.Empty:
            return
        if workers[place].poll() is not None:
            workers[place].communicate()
            workers[place] = _start()
        worker = workers[place]
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            worker.stdin.write(kind + "\n")
            worker.stdin.flush()
            done.put(Compiled(*json.loads(worker.stdout.readline())))
        except (OSError, ValueError):  # it was killed, for memory perhaps
            done.put(Compiled(kind, 0.0, False, f"its process ended with status {worker.wait()}"))


def _serve() -> None:
    """Compile what is named on stdin, and tell of each on stdout."""
    torch.set_num_threads(1)
    from adjsnn.numerics import compiled  # noqa: PLC0415  loads the compiler

    compiled._LOG.setLevel("ERROR")  # that something is compiled is known
    for line in sys.stdin:
        kind, fault, start = line.strip(), "", time.process_time()
        compiled._said.clear()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                KINDS[kind]()
            except Exception as error:  # of whatever kind: the next one may go well
                fault = f"{type(error).__name__}: {error}"
        faults = [fault, *(str(x.message) for x in told if issubclass(x.category, adjsnn.KernelCacheWarning))]
        row = Compiled(kind, time.process_time() - start, "compiling" in compiled._said, " ".join(filter(None, faults)))
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    _serve()
