#!/bin/sh
# neo: the end of a spike train is cut to a whole number when its spike times are integers.
#
# Expected: SpikeTrain(times 1, 2, 3 ms, t_stop 3.9 ms) ends at 3.9 ms. t_stop is documented as a quantity of its own that is
# converted to the units of the times; nothing says that it takes their data type.
# Seen: with an integer array it ends at 3 ms, and a t_start of 0.5 ms becomes 0 ms; with the same times as floats all is kept.
# So a firing rate over the recording is 30 % off, silently. Sample numbers of a recorder are integers by nature.
# Source: the parameters of neo.SpikeTrain, https://github.com/NeuralEnsemble/python-neo, neo/core/spiketrain.py
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile neo==0.14.6 quantities==0.16.4 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'EOF'
import neo
import numpy as np

counted = neo.SpikeTrain(np.array([1, 2, 3]), units="ms", t_start=0.5, t_stop=3.9)
measured = neo.SpikeTrain(np.array([1.0, 2.0, 3.0]), units="ms", t_start=0.5, t_stop=3.9)
print("neo", neo.__version__)
print("float times:  ", measured.t_start, "to", measured.t_stop)
print("integer times:", counted.t_start, "to", counted.t_stop)
assert (float(measured.t_start), float(measured.t_stop)) == (0.5, 3.9)
assert (float(counted.t_start), float(counted.t_stop)) == (0.0, 3.0)
EOF
