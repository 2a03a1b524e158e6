#!/bin/sh
# numba-cuda: its performance warning is not numba's NumbaPerformanceWarning, though it has that name.
#
# Expected: warnings.filterwarnings("ignore", category=numba.NumbaPerformanceWarning), as for numba's own CUDA target, which
# numba-cuda stands in for, silences its remark that a small grid does not fill the GPU.
# Seen: with numba-cuda installed, numba.cuda warns with a class of its own of the same name, no subclass of numba's; a filter by
# numba's class passes it over, and code that turns warnings into errors fails at the first small launch.
# Source: https://github.com/NVIDIA/numba-cuda, numba_cuda/numba/cuda/core/errors.py, beside numba/core/errors.py
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numba-cuda==0.30.4 numba==0.68.1
cd "$work"
"$work/venv/bin/python" - <<'EOF'
import warnings
from importlib.metadata import version

import numba
from numba.cuda.core import errors

ours, theirs = numba.NumbaPerformanceWarning, errors.NumbaPerformanceWarning
print("numba-cuda", version("numba-cuda"), "numba", version("numba"))
print("numba:     ", ours)
print("numba.cuda:", theirs)
print("a subclass:", issubclass(theirs, ours))
with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    warnings.filterwarnings("ignore", category=ours)
    warnings.warn(theirs("what a launch of a small grid says"))
print("heard behind a filter by numba's class:", len(heard))
assert theirs.__name__ == ours.__name__ and not issubclass(theirs, ours) and len(heard) == 1
EOF
