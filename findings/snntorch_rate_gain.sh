#!/bin/sh
# snnTorch: gain and offset of the rate code act on inputs that are the same at all times, and not on those that change.
#
# Expected: gain is to "scale input features by the gain" and offset to shift them. With a gain of 0 no feature fires; with an
# offset of 1 every one fires at every step.
# Seen: so it is with num_steps. With time_var_input=True features of 0.5 fire half of the time at a gain of 0, and features of 0
# never fire at an offset of 1: neither argument is used there, and nothing tells.
# Source: rate, https://github.com/jeshraghian/snntorch, snntorch/spikegen.py
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile torch==2.13.0 numpy==2.4.6 snntorch==1.0.0
cd "$work"
"$work/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import torch
from snntorch import spikegen

torch.manual_seed(0)
half, none = torch.full((1000, 4), 0.5), torch.zeros(1000, 4)
print("snntorch", version("snntorch"))
seen = {}
for name, choice in (("num_steps=1", {"num_steps": 1}), ("time_var_input=True", {"time_var_input": True})):
    silent = float(spikegen.rate(half, gain=0, **choice).mean())
    full = float(spikegen.rate(none, offset=1, **choice).mean())
    print(f"{name}: mean of the spikes {silent:.3f} of features of 0.5 with gain 0, {full:.3f} of features of 0 with offset 1")
    seen[name] = silent, full
assert seen["num_steps=1"] == (0.0, 1.0)
assert 0.45 < seen["time_var_input=True"][0] < 0.55
assert seen["time_var_input=True"][1] == 0.0
EOF
