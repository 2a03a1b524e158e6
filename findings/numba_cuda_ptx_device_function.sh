#!/bin/sh
# numba-cuda: compiling for a named GPU asks the machine for its own GPU, but only where the kernel calls a function.
#
# Expected: compile_ptx with cc=(9, 0) says for which GPU to compile, so that it needs none; PTX for other machines is what it is for.
# Seen: a kernel alone compiles. The same kernel with its arithmetic in a device function raises CudaSupportError where there is no
# driver. And both need the library NVRTC, the compiler of CUDA C++, which compiles nothing here: without it a kernel is not
# compiled either.
# Source: a device function that was not compiled yet takes the compute capability of the current device,
# https://github.com/NVIDIA/numba-cuda, numba_cuda/numba/cuda/dispatcher.py
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
install() { "$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile "$@"; }
install numba-cuda==0.30.4 numba==0.68.1 nvidia-nvvm==13.5.37
cd "$work"
cat > compile.py <<'EOF'
from importlib.metadata import version
from numba import cuda, float64

half = cuda.jit(device=True)(lambda x: 0.5 * x)

def alone(x, out):
    i = cuda.grid(1)
    if i < out.size:
        out[i] = 0.5 * x[i]

def calling(x, out):
    i = cuda.grid(1)
    if i < out.size:
        out[i] = half(x[i])

print("numba-cuda", version("numba-cuda"))
for kernel in (alone, calling):
    try:
        text, _ = cuda.compile_ptx(kernel, (float64[::1], float64[::1]), cc=(9, 0))
        print(kernel.__name__, "sm_90" in text)
    except Exception as error:
        print(kernel.__name__, type(error).__name__)
EOF
export NUMBA_CUDA_DRIVER="$work/none"  # as on a machine without a GPU
echo "with NVVM alone:"
"$work/venv/bin/python" compile.py | tee without
install nvidia-cuda-nvrtc==13.5.37
echo "with NVRTC too:"
"$work/venv/bin/python" compile.py | tee with
grep -q '^alone DynamicLibNotFoundError' without
grep -q '^alone True' with
grep -q '^calling CudaSupportError' with
