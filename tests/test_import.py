"""What `import adjsnn` loads, and what it loads later."""

import inspect
import pkgutil
import subprocess
import sys

import pytest

import adjsnn


def test_every_public_name_is_found_and_listed():
    missing = [name for name in adjsnn.__all__ if not hasattr(adjsnn, name)]
    assert not missing
    assert set(adjsnn.__all__) <= set(dir(adjsnn))
    assert {name for name in adjsnn._HOME if name not in adjsnn.__all__} == set()


def test_a_name_that_is_not_there_is_an_attribute_error():
    for module in (adjsnn, sys.modules["adjsnn.gradcheck"]):
        with pytest.raises(AttributeError, match="has no attribute 'sovle'"):
            module.sovle  # noqa: B018


@pytest.mark.slow
def test_a_name_that_is_loaded_late_is_that_of_no_module_which_would_take_its_place():
    code = "from adjsnn.gradcheck import Convergence, convergence, ThresholdBracket, threshold_bracket; "
    code += "print(callable(convergence), callable(threshold_bracket))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
    for package in (adjsnn, sys.modules["adjsnn.gradcheck"]):
        modules = {x.name for x in pkgutil.iter_modules(package.__path__)}
        assert modules & set(package._HOME) == set()


@pytest.mark.every(4)
@pytest.mark.parametrize(
    "first",
    [
        "import adjsnn.gradcheck.orders",
        "from adjsnn import *",
        "import adjsnn.gradcheck, adjsnn.solve",
        "import adjsnn.losses",
    ],
)
def test_whatever_is_imported_first_functions_are_functions_and_modules_modules(first):
    code = f"{first}\nimport adjsnn, inspect\nprint(*(inspect.isfunction(f) for f in (adjsnn.solve, adjsnn.gradcheck)), "
    code += "*(inspect.ismodule(m) for m in (adjsnn.losses, adjsnn.signals)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 4


def test_classes_are_the_same_wherever_they_are_taken_from():
    from adjsnn.lif.solution import LIFSolution  # noqa: PLC0415

    assert adjsnn.LIFSolution is LIFSolution
    assert inspect.isclass(adjsnn.HybridSolution)


def test_a_family_is_loaded_when_its_first_network_is_solved():
    code = """
import sys, adjsnn, torch
print(sum(name.startswith(("adjsnn.lif.", "adjsnn.hybrid.", "adjsnn.gated.")) for name in sys.modules))
net = adjsnn.GatedSynapseNetwork(2, 3, 1)
adjsnn.solve(net, torch.zeros(4, 1, 2), dt=0.5, kernels="plain")
from adjsnn.interop import *
print({x.partition(".")[0] for x in sys.modules} & {"neo", "quantities", "pynwb", "h5py", "faery", "pint"} == set())
print("adjsnn.gated.solve" in sys.modules, "adjsnn.lif.solve" in sys.modules, "adjsnn.hybrid.solve" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules, *later = done.stdout.split()
    assert int(modules) <= 10
    assert later == ["True", "True", "False", "False"]  # no optional package for the names of interop


@pytest.mark.slow
def test_a_first_gradient_of_a_users_system_does_not_wait_for_torchs_compiler():
    code = """
import sys, torch, adjsnn
class Leak(adjsnn.HybridSystem):
    def vector_field(self, t, y, u):
        return torch.tanh(self.w * y)
system = Leak()
system.w = torch.nn.Parameter(torch.ones(()))
for method in ("rk4", "dopri5"):
    sol = adjsnn.solve(system, None, y0=torch.ones(2, 3), ts=torch.linspace(0.0, 1.0, 5), method=method)
    sol.y.sum().backward()
print("torch._dynamo" in sys.modules, float(system.w.grad) != 0.0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
