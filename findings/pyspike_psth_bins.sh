#!/bin/sh
# PySpike: the bins of a peri-stimulus histogram are not as wide as asked for.
#
# Expected: psth(trains, bin_size) has bins of bin_size, which is documented as their width.
# Seen: the trial is cut into as many equal bins as fit, so a trial of 100 ms with bins of 60 ms has one bin of 100 ms, and with
# bins of 7 ms bins of 7.14 ms. Values are counts, so whoever divides them by the width asked for has rates that are wrong by
# that ratio: 3 spikes in 100 ms become 50 spikes/s instead of 30.
# Source: psth, https://github.com/mariomulansky/PySpike, pyspike/psth.py
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile pyspike==0.9.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import numpy as np
import pyspike

train = pyspike.SpikeTrain([10.0, 20.0, 30.0], [0.0, 100.0])
widths = {size: np.diff(pyspike.psth([train], size).x) for size in (10, 7, 60)}
print("pyspike", version("pyspike"))
for size, width in widths.items():
    print(f"bins of {size} ms: {len(width)} of {width[0]:.4g} ms, counts {pyspike.psth([train], size).y.tolist()}")
assert np.allclose(widths[10], 10.0)
assert np.allclose(widths[7], 100 / 14)
assert np.allclose(widths[60], 100.0)
EOF
