#!/bin/sh
# nitime: the cross-correlation with events begins a sample late, ends half-way, and is given wrong times.
#
# Expected: freq_domain_xcorr(series, events, t_before, t_after) "includes" that time before and after events: with 0 and 6 the
# first of 6 values is at the event. EventRelatedAnalyzer.xcorr_eta is documented to have the length asked for.
# Seen: of a response of 1.0, 0.8, 0.6, 0.4, 0.2, 0.1 it is 0.8, 0.6, 0.4: the value at the event is left out, and t_after is halved,
# which freq_domain_xcorr_zscored does not do. With a length of 8 xcorr_eta gives the 4 values from 1.0 on, which are those at and
# after the event, at the times -8, -7, -6, -5 s.
# Source: freq_domain_xcorr and xcorr_eta, https://github.com/nipy/nitime, nitime/algorithms/event_related.py and
# nitime/analysis/event_related.py
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
from nitime.algorithms import freq_domain_xcorr, freq_domain_xcorr_zscored
from nitime.analysis import EventRelatedAnalyzer
from nitime.timeseries import TimeSeries

events = np.zeros(400)
events[[50, 123, 201, 300]] = 1.0
response = np.array([1.0, 0.8, 0.6, 0.4, 0.2, 0.1])
samples = np.convolve(events, response)[:400]
plain = np.squeeze(freq_domain_xcorr(samples[None], events, 0, 6)).round(3).tolist()
scored = np.squeeze(freq_domain_xcorr_zscored(samples[None], events, 0, 6))
pair = [TimeSeries(x, sampling_interval=1.0, time_unit="s") for x in (samples, events)]
eta = EventRelatedAnalyzer(*pair, 8).xcorr_eta
values = eta.data.real.round(3).tolist()
times = [round(float(t) / 1e12, 3) for t in np.asarray(eta.time)]
print("nitime", version("nitime"))
print("response after each event:", response.tolist())
print("freq_domain_xcorr, 0 before and 6 after:", plain, "and", len(scored), "values z-scored")
print("xcorr_eta of length 8:", values, "at", times, "s")
assert plain == [0.8, 0.6, 0.4]
assert len(scored) == 6
assert values == [1.0, 0.8, 0.6, 0.4]
assert times == [-8.0, -7.0, -6.0, -5.0]
EOF
