"""Every GPU kernel as the machine code of two kinds of GPU, without one: what the simulator accepts the compiler need not."""

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import adjsnn

TESTS = Path(__file__).parent
KERNELS = {
    f"{family}.{path.stem}.{node.name}{dtype}"
    for family, dtypes in (("lif", ("",)), ("gated", (".float32", ".float64")))
    for path in (Path(adjsnn.__file__).parent / family / "cuda").glob("*.py")
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.FunctionDef) and any(ast.unparse(x) == "cuda.jit" for x in node.decorator_list)
    for dtype in dtypes
} | {f"equations.{which}.{name}" for which in ("forward", "backward") for name in ("izhikevich", "network", "synapses")}
# The way back through a reset inside a step is long, and few neurons take it. Of systems of equations one thread holds the
# addresses of all arrays; one of two variables has room for them in registers.
SPILLED = {
    "runge_kutta_adjoint.backward": 400,
    "equations.forward.network": 400,
    "equations.backward.network": 800,
    "equations.backward.synapses": 400,
}
MISSING = [name for name in ("numba_cuda", "nvidia") if find_spec(name) is None]


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason="needs the packages numba-cuda and nvidia-nvvm: make ptx")
def test_every_kernel_compiles_for_two_kinds_of_gpu():
    command = [sys.executable, str(TESTS / "compile_kernels.py"), "80", "90"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert {(name, gpu) for name, gpu, *_ in rows} == {(name, gpu) for name in KERNELS for gpu in ("80", "90")}
    for name, _, registers, _, spilled, _ in rows:
        if registers != "-":  # there is an assembler
            assert int(registers) <= 255, name
            assert int(spilled) <= SPILLED.get(name, SPILLED.get(name.removeprefix("gated.").rpartition(".")[0], 0)), name
