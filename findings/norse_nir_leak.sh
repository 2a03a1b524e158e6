#!/bin/sh
# norse: a CubaLIF node of NIR without input rests at twice its leak voltage.
#
# Expected: v_leak is where the membrane goes without input, tau_mem dv/dt = (v_leak - v) + r I; the current decays to zero.
# Seen: v_leak is given to the synapse as well, whose current then goes to v_leak: with r = 1 the membrane goes to 2 v_leak, and
# a neuron of v_leak 0.6 and threshold 1 fires without any input.
# Source: CubaLIF, https://github.com/neuromorphs/NIR, nir/ir/neuron.py
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile torch==2.13.0 numpy==2.4.6 nir==1.0.8 nirtorch==2.6 norse==1.1.0
cd "$work"
"$work/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import nir
import norse.torch
import numpy as np
import torch

def at_rest(v_leak, threshold):
    one = np.ones(1)
    nodes = {
        "input": nir.Input({"input": np.array([1])}),
        "neuron": nir.CubaLIF(
            tau_syn=0.005 * one, tau_mem=0.02 * one, r=one, v_leak=v_leak * one, v_threshold=threshold * one,
            v_reset=0.0 * one, w_in=one,
        ),
        "output": nir.Output({"output": np.array([1])}),
    }
    net = norse.torch.from_nir(nir.NIRGraph(nodes=nodes, edges=[("input", "neuron"), ("neuron", "output")]), dt=0.001)
    state, fired = None, 0
    with torch.no_grad():
        for _ in range(500):
            z, state = net(torch.zeros(1, 1), state)
            fired += int(z)
    synapse, membrane = state.state["neuron"][0]
    return float(synapse.v), float(membrane.v), fired

print("norse", version("norse"))
current, voltage, _ = at_rest(0.5, 100.0)
print(f"v_leak 0.5, no input: current {current:.3f}, voltage {voltage:.3f}")
fired = at_rest(0.6, 1.0)[2]
print(f"v_leak 0.6, threshold 1, no input: {fired} spikes in 0.5 s")
assert abs(current - 0.5) < 1e-3
assert abs(voltage - 1.0) < 1e-3
assert fired > 0
EOF
