"""Compile the loops that most tests use, in two processes, before pytest's workers would each compile all of them."""

import subprocess
import sys

GATED = """
import torch, adjsnn
for dtype in (torch.float32, torch.float64):
    net = adjsnn.GatedSynapseNetwork(1, 2, 1, dtype=dtype)
    for method in {methods}:
        adjsnn.solve(net, torch.ones(3, 1, 1, dtype=dtype), dt=0.1, method=method).readout.sum().backward()
"""
LIF = """
import torch, adjsnn
for recurrent in (False, True):
    net = adjsnn.LIFNetwork(1, 2, recurrent=recurrent, bias=2.0, learn=("bias", "tau_mem"), dtype=torch.float64)
    adjsnn.solve(net, torch.zeros(1, 1, 1, dtype=torch.float64), t_end=50.0, dt=50.0).spike_times().sum().backward()
"""
HALVES = (GATED.format(methods=["heun"]), LIF + GATED.format(methods=["euler"]))

if __name__ == "__main__":
    processes = [subprocess.Popen([sys.executable, "-c", code]) for code in HALVES]
    failed = [process.wait() != 0 for process in processes]
    sys.exit(any(failed))
