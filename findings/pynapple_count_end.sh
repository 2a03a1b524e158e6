#!/bin/sh
# pynapple: count() with bins leaves out an event at the end of an epoch, which restrict() keeps.
#
# Expected: the counts of an epoch's bins add up to the number of events that the epoch holds, and to count() of whole epochs.
# Seen: events at 0, 1, 2, 3 s have the time support [0, 3] s, closed at both ends: restrict() keeps all four, count() says 4,
# count(1.0) says 1, 1, 1. A time support taken from the data always ends at the last event, so that one is always lost where
# bins divide it.
# Source: count of pynapple.Ts, where a bin size without epochs bins the time support, https://github.com/pynapple-org/pynapple,
# pynapple/core/base_class.py
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

spikes = nap.Ts(np.array([0.0, 1.0, 2.0, 3.0]))
whole = spikes.count().values.tolist()
halves = spikes.count(1.5).values.tolist()
bins = spikes.count(1.0).values.tolist()
print("pynapple", nap.__version__)
print("time support:", spikes.time_support.values.tolist(), "holds", len(spikes.restrict(spikes.time_support)), "events")
print("count():", whole, " count(1.5):", halves, " count(1.0):", bins)
assert len(spikes.restrict(spikes.time_support)) == 4
assert whole == [4]
assert sum(halves) == 3
assert bins == [1, 1, 1]
EOF
