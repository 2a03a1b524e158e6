#!/bin/sh
# snnTorch: reading a recurrent network from NIR sends its input through the recurrent weights.
#
# Expected: in a NIR graph a node receives the sum of what its edges bring. A LIF neuron with input weight 2 and threshold 1
# fires at its first input spike; recurrent weights of zero change nothing about that.
# Seen: with a recurrent node whose weights are all zero no neuron ever fires; with one that sends neuron 0 to neuron 1, an
# input to neuron 0 makes neuron 1 fire first. The input edge has been moved from the neurons to the recurrent weights.
# Source: edges and primitives, https://github.com/neuromorphs/NIR, docs/source/primitives.md
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile torch==2.13.0 numpy==2.4.6 nir==1.0.8 nirtorch==2.6 snntorch==1.0.0
cd "$work"
"$work/venv/bin/python" - <<'EOF'
from contextlib import redirect_stdout
from io import StringIO

import nir
import numpy as np
import snntorch
import torch
from snntorch.import_nir import import_from_nir

def spikes(recurrent):
    dt, tau, zeros = 1e-4, np.full(2, 0.01), np.zeros(2)
    nodes = {
        "input": nir.Input({"input": np.array([2])}),
        "w": nir.Affine(weight=2.0 * np.eye(2), bias=zeros),
        "lif": nir.LIF(tau=tau, r=tau / dt, v_leak=zeros, v_threshold=np.ones(2), v_reset=zeros),
        "output": nir.Output({"output": np.array([2])}),
    }
    edges = [("input", "w"), ("w", "lif"), ("lif", "output")]
    if recurrent is not None:
        nodes["rec"] = nir.Affine(weight=recurrent, bias=zeros)
        edges += [("lif", "rec"), ("rec", "lif")]
    with redirect_stdout(StringIO()):
        net = import_from_nir(nir.NIRGraph(nodes=nodes, edges=edges))
    x = torch.zeros(3, 1, 2)
    x[0, 0, 0] = 1.0
    state, fired = None, []
    for step in x:
        out, state = net(step) if state is None else net(step, state)
        fired.append(out.detach().flatten().int().tolist())
    return fired

print("snntorch", snntorch.__version__, " spikes of neurons 0 and 1 in three steps, input spike to neuron 0 at the first:")
print("no recurrent node:     ", spikes(None))
print("weights zero:          ", spikes(np.zeros((2, 2))))
print("weights 0 -> 1 and back:", spikes(np.array([[0.0, 1.5], [1.5, 0.0]])))
assert spikes(None)[0] == [1, 0]
assert spikes(np.zeros((2, 2))) == [[0, 0]] * 3
assert spikes(np.array([[0.0, 1.5], [1.5, 0.0]]))[0] == [0, 1]
EOF
