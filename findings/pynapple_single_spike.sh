#!/bin/sh
# pynapple: a neuron that fired once loses its spike when it joins a group.
#
# Expected: a group of spike trains holds their spikes, whatever their number.
# Seen: one spike at 3 s beside spikes at 10 and 20 s comes out empty, two spikes at 3 and 4 s do not. The time support of a
# single event is empty (a rate of infinity), so the union over the group, to which all trains are cut, does not hold it.
# Warnings speak of an epoch without duration and of a division by zero, none of a lost spike. With time_support= the spike
# stays.
# Source: TsGroup takes the union of the supports of its members when none is given, https://github.com/pynapple-org/pynapple,
# pynapple/core/ts_group.py
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile pynapple==0.11.4 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'EOF'
import numpy as np
import pynapple as nap

def grouped(first, **more):
    group = nap.TsGroup({0: nap.Ts(np.array(first)), 1: nap.Ts(np.array([10.0, 20.0]))}, **more)
    return group[0].index.values.tolist()

print("pynapple", nap.__version__)
print("3, 4 s beside 10, 20 s:", grouped([3.0, 4.0]))
print("3 s beside 10, 20 s:   ", grouped([3.0]))
print("with a time support:   ", grouped([3.0], time_support=nap.IntervalSet(0, 30)))
print("rate of one spike:     ", nap.Ts(np.array([3.0])).rate)
assert grouped([3.0, 4.0]) == [3.0, 4.0]
assert grouped([3.0]) == []
assert grouped([3.0], time_support=nap.IntervalSet(0, 30)) == [3.0]
EOF
