#!/bin/sh
# numba's CUDA simulator: a device function of another module loses `cuda.threadIdx` when the first thread has returned from it.
#
# Expected: a kernel whose threads call a device function of another module, each for another time, gives what it gives on a GPU.
# The simulator's page names what it does not cover; this is not among it.
# Seen: AttributeError, the module numba.cuda has no attribute threadIdx, in the threads that are still in the function. The same
# function in the kernel's own module works. The simulator exchanges the name `cuda` in a function's module for the time of a call,
# for all threads at once, and the first that returns puts back what it found.
# Source: https://numba.readthedocs.io/en/stable/cuda/simulator.html; numba/cuda/simulator/kernelapi.py, swapped_cuda_module
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numba==0.68.1
cd "$work"
cat > other.py <<'EOF'
from numba import cuda


@cuda.jit(device=True)
def sum_of_ids(turns):
    total = 0
    for _ in range(turns):
        total += cuda.threadIdx.x
    return total
EOF
cat > main.py <<'EOF'
import numba
import numpy as np
from numba import cuda
from other import sum_of_ids


@cuda.jit(device=True)
def same_here(turns):
    total = 0
    for _ in range(turns):
        total += cuda.threadIdx.x
    return total


@cuda.jit
def calls_here(out):
    out[cuda.threadIdx.x] = same_here(200000 * (1 + 9 * cuda.threadIdx.x))


@cuda.jit
def calls_there(out):
    out[cuda.threadIdx.x] = sum_of_ids(200000 * (1 + 9 * cuda.threadIdx.x))


print("numba", numba.__version__)
out = np.zeros(2, np.int64)
calls_here[1, 2](out)
print("device function of the kernel's module:", out)
assert out.tolist() == [0, 2000000]
try:
    calls_there[1, 2](out)
except AttributeError as error:
    print("of another module:", error)
    assert "threadIdx" in str(error)
else:
    raise SystemExit("as on a GPU")
EOF
NUMBA_ENABLE_CUDASIM=1 "$work/venv/bin/python" main.py
