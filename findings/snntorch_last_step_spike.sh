#!/bin/sh
# snnTorch: for the temporal losses and accuracy a spike in the last time step is no spike.
#
# Expected: of three output neurons only the right one fires. By the time of first spikes it wins, at whatever step that is.
# Seen: at step 8 of 0 ... 9 accuracy_temporal is 1 and ce_temporal_loss 0.55; at step 9 they are 0 and 1.0986 = ln 3, the same
# as for a network that never fires: silence is written down as a spike in the last step, and the tie goes to neuron 0.
# Source: accuracy_temporal and ce_temporal_loss, https://github.com/jeshraghian/snntorch, snntorch/functional (documented as
# using spike times; the step that stands for silence is told in a comment of the code)
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile torch==2.13.0 numpy==2.4.6 snntorch==1.0.0
cd "$work"
"$work/venv/bin/python" - <<'EOF'
import math

import snntorch
import snntorch.functional as functional
import torch

def judge(step):
    spikes = torch.zeros(10, 1, 3)
    if step is not None:
        spikes[step, 0, 1] = 1.0
    target = torch.tensor([1])
    accuracy = float(functional.accuracy_temporal(spikes, target))
    return accuracy, float(functional.ce_temporal_loss()(spikes.requires_grad_(), target))

print("snntorch", snntorch.__version__)
for step in (7, 8, 9, None):
    print("only the right neuron fires, at step" if step is not None else "no neuron fires:", step, judge(step))
assert judge(8)[0] == 1.0
assert judge(9) == judge(None)
assert judge(9)[0] == 0.0
assert abs(judge(9)[1] - math.log(3)) < 1e-6
EOF
