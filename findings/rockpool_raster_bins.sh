#!/bin/sh
# rockpool: a raster that becomes a time series of events and a raster again has other spikes, and other lengths than asked for.
#
# Expected: a bin of raster() holds the events from t to before t + dt, and num_timesteps says how many bins there are; what
# from_raster(..., spikes_at_bin_start=True) puts at the start of a bin is found in it.
# Seen: a spike in each of 1000 bins of 1 ms, the first at 1 s: 664 bins come back wrong, half of them empty and half with two, and
# of a raster of booleans 332 spikes are lost. Times are divided by dt and rounded down, so that (1.003 - 1) / 0.001 is bin 2. With
# dt = 0.1 and num_timesteps = 3 there are four bins, for the number is found again from the times and rounded up. The
# documentation says that a numerically more stable form is used; it is defined there and not called.
# Source: TSEvent.raster and TSEvent.from_raster, https://github.com/synsense/rockpool, rockpool/timeseries.py
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile rockpool==3.1.0 numpy==2.4.6 scipy==1.17.1
cd "$work"
"$work/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import numpy as np
from rockpool import TSEvent

one_each = np.ones((1000, 1), int)
seen = {}
for start in (0.0, 1.0):
    events = TSEvent.from_raster(one_each, dt=1e-3, t_start=start, spikes_at_bin_start=True)
    counts = events.raster(dt=1e-3, add_events=True)
    seen[start] = int((counts != one_each).sum()), int((counts > 0).sum())
print("rockpool", version("rockpool"))
for start, (wrong, filled) in seen.items():
    print(f"1000 bins with a spike each from {start} s on: {wrong} differ, {filled} hold a spike")
events = TSEvent([0.05, 0.15, 0.25], [0, 0, 0], t_start=0.0, t_stop=1.0, num_channels=1)
lengths = {n: len(events.raster(dt=0.1, num_timesteps=n)) for n in (2, 3, 4, 5, 6)}
print("bins asked for and given:", lengths)
assert seen[0.0] == (0, 1000)
assert seen[1.0] == (664, 668)
assert lengths == {2: 2, 3: 4, 4: 4, 5: 5, 6: 7}
EOF
