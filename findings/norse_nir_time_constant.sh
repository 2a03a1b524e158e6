#!/bin/sh
# norse: a network that is read from NIR and written again has time constants a thousand times shorter.
#
# Expected: to_nir(from_nir(graph)) has the time constants of the graph; tau of a NIR node is a time, with no step in it.
# Seen: tau = 0.01 s comes back as 1e-5: the writer multiplies it by dt (0.001 by default), the reader does not divide by it.
# The reader takes tau as a time: with an input of 1.5 the network it makes fires 18 times in 0.2 s, as 0.01 s says.
# Source: LIF, https://github.com/neuromorphs/NIR, nir/ir/neuron.py; to_nir, https://github.com/norse/norse,
# norse/torch/utils/export_nir.py
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

one = np.ones(1)
graph = nir.NIRGraph(
    nodes={
        "input": nir.Input({"input": np.array([1])}),
        "lif": nir.LIF(tau=0.01 * one, r=one, v_leak=0.0 * one, v_threshold=one, v_reset=0.0 * one),
        "output": nir.Output({"output": np.array([1])}),
    },
    edges=[("input", "lif"), ("lif", "output")],
)
net = norse.torch.from_nir(graph, dt=0.001)
again = norse.torch.to_nir(net, torch.zeros(1, 1), dt=0.001)
state, fired = None, 0
for _ in range(200):
    z, state = net(torch.full((1, 1), 1.5), state)
    fired += int(z)
print("norse", version("norse"))
print("tau read:", float(graph.nodes["lif"].tau[0]), "s; spikes in 0.2 s:", fired)
print("tau written:", float(again.nodes["lif"].tau[0]), "s")
assert fired == 18
assert abs(float(again.nodes["lif"].tau[0]) - 1e-5) < 1e-10
EOF
