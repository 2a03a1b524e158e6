#!/bin/sh
# nitime: an average around events takes no account of the time at which the recording starts.
#
# Expected: TimeSeries and Events both carry times, so that what follows an event at 60 s in a series that starts at 10 s, with a
# sample each second, is found from sample 50 on.
# Seen: a response of 1.0, 0.8, 0.6, 0.4 after each of three events: eta gives these where the series starts at 0, and 0, 0, 0, 0
# where series and events are 10 s later: the times of events are divided by the sampling interval, without the start of the series.
# `at` of the same series does count from its start. Nothing tells.
# Source: EventRelatedAnalyzer.eta (ets likewise), https://github.com/nipy/nitime, nitime/analysis/event_related.py
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile nitime==0.12.1 numpy==2.4.6 scipy==1.17.1
cd "$work"
"$work/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import numpy as np
from nitime.analysis import EventRelatedAnalyzer
from nitime.timeseries import Events, TimeSeries

times = np.array([20.0, 45.0, 70.0])
samples = np.zeros(100)
for k, value in enumerate((1.0, 0.8, 0.6, 0.4)):
    samples[times.astype(int) + k] = value

def average(start):
    series = TimeSeries(samples, t0=start, sampling_interval=1.0, time_unit="s")
    first = float(series.at(times[0] + start))
    return first, EventRelatedAnalyzer(series, Events(times + start, time_unit="s"), 4).eta.data.real.round(3).tolist()

print("nitime", version("nitime"))
seen = {start: average(start) for start in (0.0, 10.0)}
for start, (first, mean) in seen.items():
    print(f"start at {start} s: value at the first event {first}, average after events {mean}")
assert seen[0.0] == (1.0, [1.0, 0.8, 0.6, 0.4])
assert seen[10.0] == (1.0, [0.0, 0.0, 0.0, 0.0])
EOF
