#!/bin/sh
# tonic: an event that the refractory period discards starts a new one, and an event at time zero is discarded.
#
# Expected: a pixel ignores events for 100 us after one that it let through. Of events every 60 us, from 1 us on, the second,
# fourth ... fall into such a pause: 1, 121, 241 ... remain. The first event of a recording has none before it and remains.
# Seen: only 1 remains: every discarded event counts as the last one. (The documented inequality compares neighbouring events
# and can be read so; its first sentence, that events during the period are ignored, cannot.) The same events from 0 us on leave
# nothing at all: the pixel behaves as if it had fired 100 us before time zero.
# Source: RefractoryPeriod, https://github.com/neuromorphs/tonic, tonic/transforms.py
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile tonic==1.7.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'EOF'
import numpy as np
import tonic

def remaining(times):
    events = np.zeros(len(times), dtype=[("x", np.int64), ("y", np.int64), ("t", np.int64), ("p", np.int64)])
    events["t"] = times
    return tonic.transforms.RefractoryPeriod(delta=100)(events)["t"].tolist()

print("tonic", tonic.__version__)
print("1, 61, 121 ... 961 us:", remaining(np.arange(1, 1000, 60)))
print("0, 60, 120 ... 960 us:", remaining(np.arange(0, 1000, 60)))
print("1 us alone:", remaining(np.array([1])), "  0 us alone:", remaining(np.array([0])))
assert remaining(np.arange(1, 1000, 60)) == [1]
assert remaining(np.arange(0, 1000, 60)) == []
assert remaining(np.array([1])) == [1]
assert remaining(np.array([0])) == []
EOF
