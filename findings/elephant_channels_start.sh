#!/bin/sh
# elephant: spikes found in a signal of two channels lose the time at which the recording starts.
#
# Expected: threshold_detection, peak_detection and spike_extraction give the times of the crossings, between t_start and t_stop
# of the signal, and the same ones whether channels come alone or together.
# Seen: a signal that starts at 1 s and rises at 1.010 s: 1.010 s where it is one channel, 0.010 s where it is one of two, in a
# train that starts at 0: each channel is made a signal of its own, without its start. Nothing tells, and the spikes of an
# excerpt or of a later segment no longer fit its events.
# Source: the three functions, https://github.com/NeuralEnsemble/elephant, elephant/spike_train_generation.py
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
from elephant.spike_train_generation import peak_detection, spike_extraction, threshold_detection

volts = np.full((50, 2), -1.0)
volts[10:12] = 1.0

def first_channel(find, channels):
    signal = neo.AnalogSignal(volts[:, :channels], units="mV", sampling_period=1 * pq.ms, t_start=1 * pq.s)
    train = find(signal, always_as_list=True)[0]
    return [round(float(t.rescale("s")), 6) for t in (train[0], train.t_start, train.t_stop)]

print("elephant", version("elephant"))
for find in (threshold_detection, peak_detection, spike_extraction):
    alone, together = first_channel(find, 1), first_channel(find, 2)
    print(f"{find.__name__}: spike, start and end in s: {alone} of one channel, {together} of two")
    assert alone == [1.01, 1.0, 1.05]
    assert together == [0.01, 0.0, 0.05]
EOF
