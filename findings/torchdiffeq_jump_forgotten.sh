#!/bin/sh
# torchdiffeq: once a step ends exactly at a time of jump_t, the later ones are forgotten.
#
# Expected: the option jump_t names times at which the right-hand side jumps, and the solver is to end a step at each of them.
# Seen: a pulse of area 1 between 5.5 and 5.6, both in jump_t: the integral is 1. With 1 and 2 in jump_t as well, and max_step=1,
# it is 0: from 1 a step of length 1 ends at 2, which is not strictly inside it, so it does not count as passed, and the solver
# waits for 2 ever after. The pulse lies between two steps and is never seen; nothing tells. step_t behaves the same.
# Source: jump_t and step_t, https://github.com/rtqichen/torchdiffeq, FURTHER_DOCUMENTATION.md and torchdiffeq/_impl/rk_common.py
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile torch==2.13.0 numpy==2.4.6 torchdiffeq==0.2.5
cd "$work"
"$work/venv/bin/python" - <<'EOF'
import torch
import torchdiffeq

def pulse(t, y):
    return torch.where((t >= 5.5) & (t < 5.6), 10.0, 0.0) * torch.ones_like(y)

def integral(option, times, max_step):
    options = {option: torch.tensor(times, dtype=torch.float64), "max_step": max_step}
    ends = torch.tensor([0.0, 10.0], dtype=torch.float64)
    return float(torchdiffeq.odeint(pulse, torch.zeros(1, dtype=torch.float64), ends, method="dopri5", options=options)[-1])

print("torchdiffeq", torchdiffeq.__version__)
for option in ("jump_t", "step_t"):
    seen = {}
    for times in ([5.5, 5.6], [1.0, 2.0, 5.5, 5.6]):
        for max_step in (float("inf"), 1.0):
            seen[len(times), max_step] = integral(option, times, max_step)
            print(f"{option} = {times}, max_step {max_step}: integral {seen[len(times), max_step]:.6f}")
    assert seen.pop((4, 1.0)) == 0.0
    assert all(abs(value - 1.0) < 1e-4 for value in seen.values())
EOF
