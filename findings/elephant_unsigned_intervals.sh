#!/bin/sh
# elephant: measures of irregularity explode where spike times are unsigned sample numbers.
#
# Expected: cv2 and lv take an array of intervals and are free of its unit: those of sample numbers are those of times. As defined
# they are at most 2 and 3. The code announces a cast to floating point where it makes an array of its argument.
# Seen: of spikes at samples 0, 300, 500, 900, 1000 Cv2 is 0.756 and Lv 0.511 as signed integers or floats, and 11453246 and 1.5e14
# as uint32, in which recorders and sorters keep sample numbers: nothing is cast, and an interval that is shorter than the one
# before it gives a difference of about 2^32. Nothing tells. isi, from which the intervals come, is right.
# Source: cv2 and lv, https://github.com/NeuralEnsemble/elephant, elephant/statistics.py
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile elephant==1.2.1 neo==0.14.6 quantities==0.16.4 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import numpy as np
from elephant.statistics import cv2, isi, lv

samples = [0, 300, 500, 900, 1000]
print("elephant", version("elephant"))
seen = {}
for kind in (np.float64, np.int32, np.uint32, np.uint64):
    intervals = isi(np.array(samples, kind))
    assert intervals.tolist() == [300, 200, 400, 100]
    seen[kind] = float(cv2(intervals)), float(lv(intervals))
    print(f"{kind.__name__}: intervals {intervals.tolist()}, Cv2 {seen[kind][0]:.6g}, Lv {seen[kind][1]:.6g}")
for kind in (np.float64, np.int32):
    assert abs(seen[kind][0] - 0.7555556) < 1e-6 and abs(seen[kind][1] - 0.5111111) < 1e-6
for kind in (np.uint32, np.uint64):
    assert seen[kind][0] > 1e6 and seen[kind][1] > 1e12
EOF
