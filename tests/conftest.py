"""Shapes and dtypes of the inner layers are checked while the tests run; the doors raise the library's own errors."""

import matplotlib as mpl
import pytest
import torch
from jaxtyping import config, install_import_hook

mpl.use("Agg")
torch.set_num_threads(1)  # the arrays here are too small to share out, and other work may hold the second core
CHECKED = pytest.StashKey[bool]()
INNER = ("adjsnn.systems.gates", "adjsnn.systems.membranes", "adjsnn.integrate", "adjsnn.adjoints", "adjsnn.solution")
install_import_hook(INNER, "beartype.beartype").__enter__()


# The longest of families of tests; what they show their neighbours show too, and `make test-slow` runs them.
SLOW = (
    "test_gated_rk.py::test_central_differences_with_equal_spikes[plain-rk4-lif]",
    "test_gated_rk.py::test_central_differences_with_equal_spikes[plain-heun-lif]",
    "test_gated_rk.py::test_agrees_with_bptt[plain-rk4-lif-raised_cosine-False]",
    "test_gated_rk.py::test_agrees_with_bptt[plain-rk4-lif-rectangular-True]",
    "test_gradcheck.py::test_central_differences_with_equal_spikes[plain-lif-raised_cosine]",
    "test_events.py::test_against_central_differences[time]",
    "test_charge_form.py::test_the_costate_equations_converge_at_the_order_of_their_steps[nif-heun-2]",
    "test_forward.py::test_the_tightly_balanced_network_needs_no_training[plain-0.05-0.0021-3148]",
    "test_forward.py::test_the_tightly_balanced_network_needs_no_training[plain-0.3-0.0014-485]",
    "test_adaptive.py::test_a_batch_equals_its_samples[dtype1-dopri5-False]",
    "test_adaptive.py::test_a_batch_equals_its_samples[dtype0-tsit5-True]",
    "test_gated_rk.py::test_qif_converges_to_dop853[plain-rk4]",
    "test_gated_rk.py::test_qif_converges_to_dop853[plain-heun]",
    "test_gated_rk.py::test_lif_converges_through_resets[plain-rk4]",
    "test_gated_rk.py::test_lif_converges_through_resets[plain-euler]",
    "test_gated_rk.py::test_spikes_are_located_inside_their_steps[plain-rk4]",
    "test_gated_rk.py::test_central_differences_with_equal_spikes[plain-rk4-qif]",
    "test_gated_rk.py::test_agrees_with_bptt[plain-rk4-lif-rectangular-False]",
    "test_gated_rk.py::test_agrees_with_bptt[plain-rk4-lif-raised_cosine-True]",
    "test_gated_rk.py::test_agrees_with_bptt[fused-rk4-lif-raised_cosine-True]",
    "test_gated_rk.py::test_batch_equals_its_samples_run_singly[plain-rk4]",
    "test_gradcheck.py::test_central_differences_with_equal_spikes[plain-qif-raised_cosine]",
    "test_gradcheck.py::test_central_differences_with_equal_spikes[plain-qif-rectangular]",
    "test_gradcheck.py::test_central_differences_with_equal_spikes[plain-lif-rectangular]",
    "test_gradcheck.py::test_central_differences_with_equal_spikes[plain-nif-raised_cosine]",
    "test_gates_and_membranes.py::test_a_newcomers_gate_and_membrane_pass_the_judges[CubicGate-False]",
    "test_gates_and_membranes.py::test_a_newcomers_gate_and_membrane_pass_the_judges[RaisedCosineGate-True]",
    "test_charge_form.py::test_the_costate_equations_converge_at_the_order_of_their_steps[nif-rk4-4]",
    "test_charge_form.py::test_the_costate_equations_converge_at_the_order_of_their_steps[nif-euler-1]",
    "test_charge_form.py::test_the_costate_equations_converge_at_the_order_of_their_steps[lif-heun-2]",
    "test_events.py::test_against_central_differences[held]",
    "test_examples.py::test_the_loss_falls[adaptive_neuron]",
    "test_gradcheck_smooth.py::test_adaptive_methods_agree_with_every_judge[tsit5]",
    "test_smooth_checkpoints.py::test_a_memory_budget_of_adaptive_steps_holds_the_states[dopri5]",
    "test_adaptive.py::test_a_batch_equals_its_samples[dtype1-tsit5-True]",
    "test_adaptive.py::test_a_batch_equals_its_samples[dtype1-tsit5-False]",
    "test_adaptive.py::test_a_batch_equals_its_samples[dtype0-dopri5-True]",
    "test_forward.py::test_the_tightly_balanced_network_needs_no_training[plain-0.1-0.0018-1513]",
    "test_lif_adjoint.py::test_gradients_are_those_of_central_differences[plain-per_synapse-0.5]",
    "test_training.py::test_a_killed_run_goes_on_to_the_bit[0]",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    met = set()
    for item in items:
        if item.nodeid.endswith(SLOW):
            item.add_marker(pytest.mark.slow)
        # Shape checks double the time of a solve: the first case of each test has them, and every slow one.
        name = item.nodeid.partition("[")[0]
        item.stash[CHECKED] = name not in met or item.get_closest_marker("slow") is not None
        met.add(name)


def pytest_runtest_setup(item):
    config.update("jaxtyping_disable", not item.stash[CHECKED])


@pytest.fixture
def unchecked_shapes():
    """Leave out the shape checks where a test runs thousands of solves: they quadruple its time."""
    config.update("jaxtyping_disable", True)


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
