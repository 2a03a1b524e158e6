#!/bin/sh
# spiketools: spike times come back from a binary spike train one sample late.
#
# Expected: convert_times_to_train and convert_train_to_times undo each other for times on the sampling grid.
# Seen: 0.002 s at 1000 Hz sets sample 2, as it should when sample 0 is time 0; sample 2 is read back as 0.003 s. Each round
# trip adds a sample. The example in the documentation of the second function counts samples from one, that of the array from
# zero.
# Source: both functions, https://github.com/spiketools/spiketools, spiketools/measures/conversions.py
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile spiketools==0.2.2 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import numpy as np
from spiketools.measures.conversions import convert_times_to_train, convert_train_to_times

times = np.array([0.002, 0.25, 0.5, 1.0])
train = convert_times_to_train(times, fs=1000)
once = convert_train_to_times(train, fs=1000)
twice = convert_train_to_times(convert_times_to_train(once, fs=1000), fs=1000)
print("spiketools", version("spiketools"))
print("times:           ", times.tolist())
print("samples set:     ", np.flatnonzero(train).tolist())
print("after one trip:  ", np.round(once, 6).tolist())
print("after two trips: ", np.round(twice, 6).tolist())
assert np.flatnonzero(train).tolist() == [2, 250, 500, 1000]
assert np.allclose(once, times + 0.001)
assert np.allclose(twice, times + 0.002)
EOF
