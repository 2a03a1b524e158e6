"""Compile the loops that most tests use, in two processes, before pytest's workers would each compile all of them."""

import subprocess
import sys

GATED = """
import warnings, torch, adjsnn
warnings.simplefilter("ignore")  # of neurons that are silent
for method, dtype in {choices}:
    net = adjsnn.GatedSynapseNetwork(1, 2, 1, dtype=dtype)
    adjsnn.solve(net, torch.ones(3, 1, 1, dtype=dtype), dt=0.1, method=method).readout.sum().backward()
"""
LIF = """
import torch, adjsnn
for recurrent, tau_mem in {choices}:
    tau_mem = torch.tensor(tau_mem, dtype=torch.float64)
    net = adjsnn.LIFNetwork(1, 2, recurrent, tau_mem, bias=2.0, learn=("bias", "tau_mem"), dtype=torch.float64)
    adjsnn.solve(net, torch.zeros(1, 1, 1, dtype=torch.float64), t_end=50.0, dt=50.0).spike_times().sum().backward()
"""
GLIF = """
own = dict(tau_adapt=[9.0], jump_adapt=[-0.1], learn=("bias", "tau_adapt"))
net = adjsnn.LIFNetwork(1, 2, tau_mem={tau_mem}, bias=2.0, dtype=torch.float64, **own)
adjsnn.solve(net, torch.zeros(1, 1, 1, dtype=torch.float64), t_end=50.0, dt=50.0).spike_times().sum().backward()
"""
HALVES = (  # that take equally long; equal neurons have loops of their own
    LIF.format(choices="[(True, 20.0), (False, [20.0, 21.0])]") + GLIF.format(tau_mem=20.0),
    GATED.format(choices='[("euler", torch.float32), ("euler", torch.float64), ("heun", torch.float64)]')
    + LIF.format(choices="[(False, 20.0)]")
    + GLIF.format(tau_mem="[20.0, 21.0]"),
)

if __name__ == "__main__":
    processes = [subprocess.Popen([sys.executable, "-c", code]) for code in HALVES]
    failed = [process.wait() != 0 for process in processes]
    sys.exit(any(failed))
