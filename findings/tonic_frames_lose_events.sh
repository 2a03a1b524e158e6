#!/bin/sh
# tonic: cutting a recording into n frames leaves events out of every frame.
#
# Expected: ToFrame(n_time_bins=n) slices the recording into n frames along its time axis; each event is in one of them.
# Seen: of 100 events at 0, 1, ... 99 us, 10 frames hold 90, and 64 frames hold 64. The width of a frame is rounded down to
# whole time units (99 // 10 = 9), so the n frames end before the recording does, and nothing tells.
# Source: the parameters of ToFrame, https://github.com/neuromorphs/tonic, tonic/transforms.py
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

events = np.zeros(100, dtype=[("x", np.int64), ("y", np.int64), ("t", np.int64), ("p", np.int64)])
events["t"] = np.arange(100)
held = {n: int(tonic.transforms.ToFrame(sensor_size=(1, 1, 1), n_time_bins=n)(events).sum()) for n in (1, 10, 64)}
print("tonic", tonic.__version__)
for n, count in held.items():
    print(f"{n} frames of 100 events hold {count}")
assert held == {1: 99, 10: 90, 64: 64}
EOF
