#!/bin/sh
# elephant: at the two limits that are allowed by name, a spike train is far from itself.
#
# Expected: the distance of a train from itself is 0. victor_purpura_distance allows a cost factor of infinity, "meaning infinite
# cost for any spike shift": equal spikes need no shift and stay free, as at every finite cost, however large. Likewise
# van_rossum_distance with a time constant of 0, the limit of small ones.
# Seen: trains that share all of their three spikes are at 0 for a cost factor of 1e9 Hz and at 6 for infinity, those that share
# two at 2 and 6; for van Rossum at 0 and 2.449 = sqrt(6): spikes are counted and never compared, on the diagonal too.
# Source: both functions, https://github.com/NeuralEnsemble/elephant, elephant/spike_train_dissimilarity.py, documented there as
# the least cost of turning one train into the other, and as the Euclidean distance of the two filtered trains
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
import quantities as pq
from elephant.spike_train_dissimilarity import van_rossum_distance, victor_purpura_distance

def train(*times):
    return neo.SpikeTrain(times, units="ms", t_stop=10.0)

trains = [train(1.0, 2.0, 3.0), train(1.0, 2.0, 3.0), train(1.0, 2.0, 4.0)]
victor = {q: victor_purpura_distance(trains, q * pq.Hz)[0].round(3).tolist() for q in (1e9, np.inf)}
rossum = {tau: van_rossum_distance(trains, tau * pq.s)[0].round(3).tolist() for tau in (1e-9, 0.0)}
print("elephant", version("elephant"))
print("distances of a train from itself, from an equal one, from one with another third spike:")
for q, row in victor.items():
    print("Victor-Purpura, cost factor", q, "Hz:", row)
for tau, row in rossum.items():
    print("van Rossum, time constant", tau, "s:", row)
assert victor == {1e9: [0.0, 0.0, 2.0], np.inf: [6, 6, 6]}
assert rossum == {1e-9: [0.0, 0.0, 1.414], 0.0: [2.449, 2.449, 2.449]}
EOF
