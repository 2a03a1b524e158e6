#!/bin/sh
# elephant: the window of the spike time tiling coefficient widens with the time of day.
#
# Expected: spikes of two trains are coincident where they are at most dt apart, as the description of the coefficient has it.
# What happens at 1 ... 4 s of a recording that starts at 0 is the same as at 1001 ... 1004 s of one that starts at 1000 s.
# Seen: spikes 12 ms apart, dt = 5 ms (the default): the coefficient is -0.008 at 0 and at 100 s, and 1, its largest value, at
# 1000 s, for the trains are compared by numpy's isclose with atol=dt, which adds 1e-5 of the time itself: 10 ms at 1000 s. A
# Poisson train of 5 Hz against an independent one: near 0 at the start, 0.3 after an hour, near 1 after a day.
# Source: spike_time_tiling_coefficient, https://github.com/NeuralEnsemble/elephant, elephant/spike_train_correlation.py; it has
# been reported there since, in pull request 706
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile elephant==1.2.1 neo==0.14.6 quantities==0.16.4 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import neo
import numpy as np
from elephant.spike_train_correlation import spike_time_tiling_coefficient

def tiling(first, second, start, duration):
    trains = [neo.SpikeTrain(start + x, units="s", t_start=start, t_stop=start + duration) for x in (first, second)]
    return float(spike_time_tiling_coefficient(*trains))

starts = (0.0, 100.0, 1000.0, 3600.0, 86400.0)
regular = np.array([1.0, 2.0, 3.0, 4.0])
rng = np.random.default_rng(0)
independent = [np.sort(rng.uniform(0.0, 100.0, 500)) for _ in range(2)]
apart = [tiling(regular, regular + 0.012, start, 5.0) for start in starts]
chance = [tiling(*independent, start, 100.0) for start in starts]
print("elephant", version("elephant"))
print("start of the recording in s:", starts)
print("trains 12 ms apart:         ", np.round(apart, 3).tolist())
print("independent trains:         ", np.round(chance, 3).tolist())
assert abs(apart[0] + 0.008) < 1e-6 and abs(apart[1] + 0.008) < 1e-6
assert apart[2:] == [1.0, 1.0, 1.0]
assert abs(chance[0]) < 0.05 and chance[3] > 0.2 and chance[4] > 0.9
EOF
