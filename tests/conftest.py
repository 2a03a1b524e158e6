"""Shapes and dtypes of the inner layers are checked while the tests run; the doors raise the library's own errors."""

import gc
import os
import random
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads wait actively for each other, longer than small products take

import matplotlib as mpl
import pytest
import torch
from jaxtyping import config, install_import_hook

gc.disable()  # until all that stays is there
mpl.use("Agg")
if not torch.cuda.is_available():  # loops for a GPU run in numba's simulator then; numba reads this when it is imported
    os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")
torch.set_num_threads(1)  # the arrays here are too small to share out, and other work may hold the second core
CHECKED = pytest.StashKey[bool]()
INNER = (
    "adjsnn.gated.gates",
    "adjsnn.gated.membranes",
    "adjsnn.gated.plain",
    "adjsnn.gated.program",
    "adjsnn.gated.euler",
    "adjsnn.gated.euler_adjoint",
    "adjsnn.gated.runge_kutta",
    "adjsnn.gated.runge_kutta_adjoint",
    "adjsnn.gated.cotangents",
    "adjsnn.gated.autograd",
    "adjsnn.gated.segmented",
    "adjsnn.gated.solution",
    "adjsnn.lif.flow",
    "adjsnn.lif.plain",
    "adjsnn.lif.plain_adjoint",
    "adjsnn.lif.autograd",
    "adjsnn.lif.glif.voltage",
    "adjsnn.lif.clocked",
    "adjsnn.lif.clocked_adaptation",
    "adjsnn.lif.clocked_problem",
    "adjsnn.lif.clocked_readout",
    "adjsnn.lif.clocked_solution",
    "adjsnn.hybrid.adaptive",
    "adjsnn.hybrid.arrays",
    "adjsnn.hybrid.autograd",
    "adjsnn.hybrid.backsolve",
    "adjsnn.hybrid.blocks",
    "adjsnn.hybrid.continuous",
    "adjsnn.hybrid.costate_path",
    "adjsnn.hybrid.crossings",
    "adjsnn.hybrid.discrete",
    "adjsnn.hybrid.discrete_blocks",
    "adjsnn.hybrid.discrete_events",
    "adjsnn.hybrid.event_blocks",
    "adjsnn.hybrid.event_steps",
    "adjsnn.hybrid.events",
    "adjsnn.hybrid.excursions",
    "adjsnn.hybrid.forward",
    "adjsnn.hybrid.guards",
    "adjsnn.hybrid.keep",
    "adjsnn.hybrid.packets",
    "adjsnn.hybrid.products",
    "adjsnn.hybrid.run",
    "adjsnn.hybrid.solution",
    "adjsnn.hybrid.steps",
    "adjsnn.hybrid.torchdiffeq",
    "adjsnn.hybrid.vjp",
    "adjsnn.numerics.checkpoints",
    "adjsnn.numerics.tableaus",
)
install_import_hook(INNER, "beartype.beartype").__enter__()


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem(collector):
    """Of a test marked `every(n)`, all cases but every n-th are slow.

    Where there are many, n is prime to the number of values of each parameter.
    """
    made = yield
    cases = made if isinstance(made, list) else []
    for k, item in enumerate(cases):
        if (mark := item.get_closest_marker("every")) is None:
            continue
        n = mark.args[0] if len(mark.args) == 1 else None
        if not isinstance(n, int) or n < 2 or not hasattr(item, "callspec"):
            raise collector.CollectError(f"{item.name} is marked every({n}): expected n > 1, and a test with parameters")
        if k % n:
            item.add_marker(pytest.mark.slow)
    return made


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    met: dict[str, set[str]] = {}
    for item in items:
        name, of_module = item.nodeid.partition("[")[0], met.setdefault(item.nodeid.partition("::")[0], set())
        # Shape checks double the time of a solve: the first case of every third test has them, and every slow one.
        item.stash[CHECKED] = (name not in of_module and len(of_module) % 3 == 0) or item.get_closest_marker("slow") is not None
        of_module.add(name)


def pytest_collection_finish():
    """The garbage collector looks through what tests make, more seldom, and not each time through all modules."""
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    gc.enable()


def pytest_runtest_setup(item):
    config.update("jaxtyping_disable", not item.stash[CHECKED])
    torch.manual_seed(0)  # a network without a generator is the same one, whatever ran before
    random.seed(0)  # the shape checks look at one item of a list, drawn by it


@pytest.fixture
def unchecked_shapes():
    """Leave out the shape checks where a test runs thousands of solves: they quadruple its time."""
    config.update("jaxtyping_disable", True)


@pytest.fixture(params=os.environ.get("ADJSNN_GATED_KERNELS", "auto plain").split())
def kernels(request, monkeypatch):
    """The option of `solve` of gated networks: fused loops where they cover the network, and torch operations alone; or what
    `make simulate` asks for."""
    if request.param == "cuda":
        from adjsnn.gated.engine import LOOPS  # noqa: PLC0415

        def uncovered(neuron, tensors):
            if (why := loops.uncovered(neuron, tensors)) is not None:
                pytest.skip(why)

        request.getfixturevalue("simulator")
        loops = LOOPS["cuda"]
        monkeypatch.setitem(LOOPS, "cuda", loops._replace(uncovered=uncovered))
    return request.param


@pytest.fixture
def simulator(monkeypatch):
    """In the simulator threads of a block wait for each other actively: few, with several neurons each, and short turns."""
    if torch.cuda.is_available():
        yield
        return
    from adjsnn.gated.cuda import run  # noqa: PLC0415  after what is said above of numba
    from adjsnn.lif.cuda import recurrent_run  # noqa: PLC0415

    for module, name in ((recurrent_run, "WIDTH"), (run, "WIDTH"), (run, "WARP")):
        monkeypatch.setattr(module, name, 2)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture(params=os.environ.get("ADJSNN_LIF_KERNELS", "fused plain").split())
def lif_kernels(request, monkeypatch):
    """The option of `solve` of LIF networks: compiled loops, and the plain event queue; or what `make simulate` asks for."""
    if request.param == "cuda":
        from adjsnn.lif.engine import BODIES  # noqa: PLC0415

        def obstacle(layers):
            if (why := body.obstacle(layers)) is not None:
                pytest.skip(why)

        request.getfixturevalue("simulator")
        body = BODIES["cuda"]
        monkeypatch.setitem(BODIES, "cuda", body._replace(obstacle=obstacle))
    return request.param
