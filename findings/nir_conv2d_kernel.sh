#!/bin/sh
# nir: a graph with a convolution whose kernel is not square is written, and its file cannot be read again.
#
# Expected: a Conv2d of weight (C_out, C_in, N_x, N_y) has outputs by N_x along x and by N_y along y, as its documentation gives the
# shapes; what nir.write writes nir.read reads.
# Seen: both sides of the output are found by N_x. A graph with the true shapes behind it is refused ("type mismatch") when it is
# built, and when its file is read; with type_check=False it is built and written, and then nir.read raises.
# Source: Conv2d.__post_init__, https://github.com/neuromorphs/NIR, nir/ir/conv.py
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==2.4.6 nir==1.0.8
cd "$work"
"$work/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import nir
import numpy as np

def graph(tall, wide, type_check):
    conv = nir.Conv2d((6, 8), np.ones((1, 1, tall, wide)), 1, 0, 1, 1, np.zeros(1))
    shape = (1, 6 - tall + 1, 8 - wide + 1)
    one = np.ones(shape)
    nodes = {
        "input": nir.Input({"input": np.array([1, 6, 8])}), "conv": conv, "neuron": nir.IF(r=one, v_threshold=one, v_reset=0 * one),
        "output": nir.Output({"output": np.array(shape)}),
    }
    print(f"kernel {tall} x {wide}: nir finds {conv.output_type['output'].tolist()}, true is {list(shape)}")
    return nir.NIRGraph(nodes, [("input", "conv"), ("conv", "neuron"), ("neuron", "output")], type_check=type_check)

print("nir", version("nir"))
nir.write("square.nir", graph(3, 3, True))
nir.read("square.nir")
print("square: read again")
nir.write("other.nir", graph(3, 5, False))
try:
    nir.read("other.nir")
except ValueError as error:
    print("not square:", error)
else:
    raise SystemExit("it is read now")
EOF
