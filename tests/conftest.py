"""Shapes and dtypes of the inner layers are checked while the tests run; the doors raise the library's own errors."""

import matplotlib as mpl
import pytest
import torch
from jaxtyping import config, install_import_hook

mpl.use("Agg")
torch.set_num_threads(1)  # the arrays here are too small to share out, and other work may hold the second core
INNER = ("adjsnn.systems.gates", "adjsnn.systems.membranes", "adjsnn.integrate", "adjsnn.adjoints", "adjsnn.solution")
install_import_hook(INNER, "beartype.beartype").__enter__()


@pytest.fixture
def unchecked_shapes():
    """Leave out the shape checks where a test runs thousands of solves: they quadruple its time."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture(params=["fused", "plain"])
def kernels(request, monkeypatch):
    """Run a test over both: the fused loops where they cover the network, and torch operations alone."""
    from adjsnn.integrate.gated_program import GatedProgram  # noqa: PLC0415 - after the import hook

    if request.param == "plain":
        monkeypatch.setattr(GatedProgram, "kernel", lambda *_: None)
    return request.param


@pytest.fixture(params=["fused", "plain"])
def lif_kernels(request):
    """Run a test of LIF networks over both: the compiled loops, and the plain event queue."""
    return request.param
