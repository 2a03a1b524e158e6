#!/bin/sh
# pynapple: a correlogram ends a bin early, on both sides, for bin sizes that are not exact in binary.
#
# Expected: with a window of 1 s the lags go from -1 to 1 s, whatever the bins; in steps of 0.5 and of 0.25 s they do.
# Seen: in steps of 0.2 s they go from -0.8 to 0.8 s, and of 0.1 s from -0.9 to 0.9 s: the number of bins is 2 // 0.1, which is 19
# in floating point. Where each spike of one unit follows one of another by 1 s nothing is left of it. Of bins of 0.001 to 0.1 s
# and windows of 1 to 39 of them more than half are cut short.
# Source: compute_crosscorrelogram (the others likewise), https://github.com/pynapple-org/pynapple,
# pynapple/process/correlograms.py
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

first = np.arange(1.0, 100.0, 7.0)
support = nap.IntervalSet(0.0, 110.0)
group = nap.TsGroup({0: nap.Ts(first), 1: nap.Ts(first + 1.0)}, time_support=support)

def correlogram(binsize, windowsize):
    return nap.compute_crosscorrelogram(group, binsize, windowsize, norm=False)

print("pynapple", nap.__version__)
seen = {}
for binsize in (0.5, 0.25, 0.2, 0.1):
    rates = correlogram(binsize, 1.0)
    pairs = round(float(rates.values.sum()) * binsize * len(first))
    seen[binsize] = round(float(rates.index[-1]), 6), pairs
    print(f"bins of {binsize} s, window of 1 s: lags up to {seen[binsize][0]} s, {pairs} of {len(first)} pairs that are 1 s apart")
shapes = [(b, n) for b in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1) for n in range(1, 40)]
short = sum(len(correlogram(b, round(b * n, 6))) == 2 * n - 1 for b, n in shapes)
print(f"{short} of {len(shapes)} shapes are a bin short on both sides")
assert seen == {0.5: (1.0, 15), 0.25: (1.0, 15), 0.2: (0.8, 0), 0.1: (0.9, 0)}
assert short > len(shapes) / 2
EOF
