"""Shapes and dtypes of the inner layers are checked while the tests run; the doors raise the library's own errors."""

from collections import Counter

import matplotlib as mpl
import pytest
import torch
from jaxtyping import config, install_import_hook

mpl.use("Agg")
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
    "adjsnn.hybrid.adaptive",
    "adjsnn.hybrid.autograd",
    "adjsnn.hybrid.backsolve",
    "adjsnn.hybrid.continuous",
    "adjsnn.hybrid.costate_path",
    "adjsnn.hybrid.discrete",
    "adjsnn.hybrid.discrete_events",
    "adjsnn.hybrid.events",
    "adjsnn.hybrid.excursions",
    "adjsnn.hybrid.forward",
    "adjsnn.hybrid.guards",
    "adjsnn.hybrid.keep",
    "adjsnn.hybrid.run",
    "adjsnn.hybrid.solution",
    "adjsnn.hybrid.steps",
    "adjsnn.hybrid.torchdiffeq",
    "adjsnn.hybrid.vjp",
    "adjsnn.numerics.checkpoints",
    "adjsnn.numerics.tableaus",
)
install_import_hook(INNER, "beartype.beartype").__enter__()


# Families of cases of which `make test` runs every n-th, with n prime to the number of values of each parameter where there
# are many; `make test-slow` runs the others.
EVERY = {
    "hybrid/test_adaptive.py::test_a_batch_equals_its_samples": 3,
    "training/test_autoencoding.py::test_a_short_run": 4,
    "gated/test_charge_form.py::test_adaptive_steps_reach_dop853_through_every_turn": 2,
    "gated/test_charge_form.py::test_adaptive_steps_reach_dop853_through_resets": 5,
    "gated/test_charge_form.py::test_both_adjoints_reach_the_network_stepped_finely": 2,
    "gated/test_charge_form.py::test_the_costate_equations_converge_at_the_order_of_their_steps": 5,
    "training/test_delayed_xor.py::test_a_short_run": 2,
    "training/test_delayed_xor.py::test_no_time_tells_the_class": 3,
    "gated/test_discrete_adjoint.py::test_agrees_with_bptt": 5,
    "gated/test_discrete_adjoint.py::test_each_output_alone_carries_its_gradient": 5,
    "gated/test_discrete_adjoint.py::test_float32_agrees_with_float64": 5,
    "hybrid/test_events.py::test_batch_against_singles": 2,
    "hybrid/test_events.py::test_checkpoints_replay_the_events": 2,
    "hybrid/test_events.py::test_continuous_converges_to_discrete": 3,
    "hybrid/test_events.py::test_continuous_on_a_grid_of_its_own": 2,
    "hybrid/test_events.py::test_discrete_equals_backpropagation_through_events": 5,
    "gated/test_forward.py::test_the_tightly_balanced_network_needs_no_training": 3,
    "gated/test_runge_kutta.py::test_agrees_with_bptt": 11,
    "gated/test_runge_kutta.py::test_central_differences_with_equal_spikes": 5,
    "gated/test_gates_and_membranes.py::test_a_newcomers_gate_and_membrane_pass_the_judges": 2,
    "gradcheck/test_gated.py::test_central_differences_with_equal_spikes": 5,
    "gradcheck/test_hybrid.py::test_fixed_methods_agree_with_every_judge": 5,
    "gradcheck/test_hybrid.py::test_the_slope_is_the_order_of_the_method": 4,
    "gated/test_kernels.py::test_fused_loops_are_as_accurate_in_float32": 5,
    "lif/test_adjoint.py::test_gradients_are_those_of_central_differences": 5,
    "lif/test_consistency.py::test_fused_loops_and_plain_code_agree": 5,
    "lif/test_currents.py::test_gradients_are_those_of_central_differences": 9,
    "lif/test_currents.py::test_half_the_step_is_the_same_input": 3,
    "lif/test_currents.py::test_spikes_are_those_of_a_dense_scan": 11,
    "lif/test_currents.py::test_the_largest_voltage_under_currents": 3,
    "gradcheck/test_lif.py::test_a_wrong_gradient_is_caught_by_differences": 3,
    "gradcheck/test_lif.py::test_the_critical_weight_of_a_single_spike": 3,
    "gradcheck/test_lif.py::test_what_is_right_passes": 5,
    "lif/test_losses.py::test_error_of_the_readout_is_its_integral": 2,
    "lif/test_losses.py::test_voltage_integral": 3,
    "lif/test_losses.py::test_voltage_maximum_has_the_gradient_of_differences": 3,
    "lif/test_lost_spikes.py::test_a_long_silence_after_the_last_spike_loses_none": 5,
    "lif/test_lost_spikes.py::test_random_neurons_spike_as_often_as_in_extended_precision": 2,
    "lif/test_spikes.py::test_spikes_are_those_of_a_dense_scan": 11,
    "lif/test_ties.py::test_neurons_that_are_alike_spike_together_though_each_would_silence_the_others": 3,
    "gated/test_overrides.py::test_a_gate_may_return_its_argument_a_view_a_number_and_inherit_anything": 5,
    "gated/test_overrides.py::test_an_overridden_function_is_solved_and_differentiated": 5,
    "gated/test_overrides.py::test_the_judges_see_the_users_own_functions": 3,
    "test_projection.py::test_projected_twice_is_projected_once_and_inside_nothing_moves": 5,
    "training/test_run_choices.py::test_numbers_out_of_range_are_refused_before_there_is_a_folder": 3,
    "gated/test_segmented.py::test_checkpointed_gradients_are_the_same_bits": 5,
    "gated/test_segmented_plain.py::test_checkpointed_gradients_are_the_same_bits": 5,
    "gated/test_segmented_plain.py::test_every_output_carries_its_gradient": 5,
    "gated/test_segmented_plain.py::test_odd_sizes_are_the_same_bits": 5,
    "hybrid/test_fixed_steps.py::test_slope_against_scipy": 4,
    "hybrid/test_adjoints.py::test_checkpoints_give_the_same_bits": 5,
    "hybrid/test_adjoints.py::test_checkpoints_keep_the_square_root_of_the_states": 2,
    "hybrid/test_adjoints.py::test_continuous_converges_to_discrete_at_the_order": 5,
    "hybrid/test_adjoints.py::test_continuous_converges_with_its_own_grid": 3,
    "hybrid/test_adjoints.py::test_continuous_converges_with_its_tolerance": 7,
    "hybrid/test_adjoints.py::test_discrete_against_central_differences": 4,
    "hybrid/test_adjoints.py::test_discrete_equals_backpropagation": 7,
    "hybrid/test_adjoints.py::test_errors_over_a_leak": 2,
    "hybrid/test_adjoints.py::test_forward_sensitivities_equal_discrete": 4,
    "hybrid/test_checkpoints.py::test_a_memory_budget_of_fixed_steps_holds_everything": 2,
    "hybrid/test_checkpoints.py::test_a_second_backward_pass_makes_the_states_again": 2,
    "hybrid/test_checkpoints.py::test_backsolve_keeps_the_last_state_alone": 3,
    "hybrid/test_checkpoints.py::test_odd_sizes_are_the_same_bits": 5,
    "hybrid/test_checkpoints.py::test_steps_and_states_are_those_of_the_plan": 7,
    "hybrid/test_torchdiffeq_problems.py::test_every_adjoint": 3,
    "hybrid/test_torchdiffeq_problems.py::test_solution_and_gradient": 5,
    "training/test_runs.py::test_a_run_killed_before_its_first_step_was_saved": 3,
    "training/test_runs.py::test_a_stopped_run_saves_its_last_step": 2,
    "training/test_runs.py::test_two_processes_have_the_gradient_of_one": 2,
    "test_trains.py::test_a_spike_on_every_edge_is_one_spike_in_every_bin": 3,
}
# The longest of tests, whose neighbours show nearly the same.
SLOW = (
    "hybrid/test_adaptive.py::test_a_batch_equals_its_samples[dtype0-dopri5-True]",
    "hybrid/test_adaptive.py::test_a_batch_equals_its_samples[dtype0-tsit5-True]",
    "hybrid/test_adaptive.py::test_a_batch_equals_its_samples[dtype1-dopri5-False]",
    "hybrid/test_adaptive.py::test_a_batch_equals_its_samples[dtype1-tsit5-False]",
    "hybrid/test_adaptive.py::test_a_batch_equals_its_samples[dtype1-tsit5-True]",
    "training/test_autoencoding.py::test_the_rate_distortion_curve",
    "gated/test_charge_form.py::test_the_costate_equations_converge_at_the_order_of_their_steps[lif-euler-1]",
    "gated/test_charge_form.py::test_the_costate_equations_converge_at_the_order_of_their_steps[lif-heun-2]",
    "gated/test_charge_form.py::test_the_costate_equations_converge_at_the_order_of_their_steps[nif-euler-1]",
    "gated/test_charge_form.py::test_the_costate_equations_converge_at_the_order_of_their_steps[nif-heun-2]",
    "gated/test_charge_form.py::test_the_costate_equations_converge_at_the_order_of_their_steps[nif-rk4-4]",
    "test_compiled_code.py::test_processes_that_fill_an_empty_folder_at_once_agree",
    "test_compiled_code.py::test_the_library_in_a_zip_file_keeps_its_code",
    "training/test_delayed_xor.py::test_adjoints_give_the_same_gradient",
    "hybrid/test_events.py::test_a_loss_of_event_times_alone_and_of_states_alone",
    "hybrid/test_events.py::test_against_central_differences[held]",
    "hybrid/test_events.py::test_against_central_differences[time]",
    "hybrid/test_events.py::test_continuous_on_a_grid_of_its_own[adjoint0]",
    "test_examples.py::test_the_loss_falls[adaptive_neuron]",
    "test_examples.py::test_the_loss_falls[fitzhugh_nagumo]",
    "test_examples.py::test_the_loss_falls[morris_lecar]",
    "training/test_experiment_and_readme.py::test_yin_yang_leaves_its_folder_and_the_same_numbers",
    "gated/test_forward.py::test_the_tightly_balanced_network_needs_no_training[plain-0.05-0.0021-3148]",
    "gated/test_forward.py::test_the_tightly_balanced_network_needs_no_training[plain-0.1-0.0018-1513]",
    "gated/test_forward.py::test_the_tightly_balanced_network_needs_no_training[plain-0.3-0.0014-485]",
    "gated/test_runge_kutta.py::test_agrees_with_bptt[fused-rk4-lif-raised_cosine-True]",
    "gated/test_runge_kutta.py::test_agrees_with_bptt[plain-rk4-lif-raised_cosine-False]",
    "gated/test_runge_kutta.py::test_agrees_with_bptt[plain-rk4-lif-raised_cosine-True]",
    "gated/test_runge_kutta.py::test_agrees_with_bptt[plain-rk4-lif-rectangular-False]",
    "gated/test_runge_kutta.py::test_agrees_with_bptt[plain-rk4-lif-rectangular-True]",
    "gated/test_runge_kutta.py::test_batch_equals_its_samples_run_singly[plain-rk4]",
    "gated/test_runge_kutta.py::test_central_differences_with_equal_spikes[plain-heun-lif]",
    "gated/test_runge_kutta.py::test_central_differences_with_equal_spikes[plain-rk4-lif]",
    "gated/test_runge_kutta.py::test_central_differences_with_equal_spikes[plain-rk4-qif]",
    "gated/test_runge_kutta.py::test_lif_converges_through_resets[plain-euler]",
    "gated/test_runge_kutta.py::test_lif_converges_through_resets[plain-rk4]",
    "gated/test_runge_kutta.py::test_qif_converges_to_dop853[plain-heun]",
    "gated/test_runge_kutta.py::test_qif_converges_to_dop853[plain-rk4]",
    "gated/test_runge_kutta.py::test_spikes_are_located_inside_their_steps[plain-rk4]",
    "gated/test_gates_and_membranes.py::test_a_newcomers_gate_and_membrane_pass_the_judges[CubicGate-False]",
    "gated/test_gates_and_membranes.py::test_a_newcomers_gate_and_membrane_pass_the_judges[RaisedCosineGate-True]",
    "gradcheck/test_gated.py::test_central_differences_with_equal_spikes[plain-lif-raised_cosine]",
    "gradcheck/test_gated.py::test_central_differences_with_equal_spikes[plain-lif-rectangular]",
    "gradcheck/test_gated.py::test_central_differences_with_equal_spikes[plain-nif-raised_cosine]",
    "gradcheck/test_gated.py::test_central_differences_with_equal_spikes[plain-qif-raised_cosine]",
    "gradcheck/test_gated.py::test_central_differences_with_equal_spikes[plain-qif-rectangular]",
    "gradcheck/test_gated.py::test_the_command_as_a_module",
    "gradcheck/test_hybrid.py::test_a_wrong_adjoint_does_not_converge",
    "gradcheck/test_hybrid.py::test_a_wrong_slope_of_the_guard_is_caught",
    "gradcheck/test_hybrid.py::test_adaptive_methods_agree_with_every_judge[dopri5]",
    "gradcheck/test_hybrid.py::test_adaptive_methods_agree_with_every_judge[tsit5]",
    "gradcheck/test_hybrid.py::test_events_are_judged_on_the_same_steps",
    "gradcheck/test_hybrid.py::test_the_command",
    "gradcheck/test_hybrid.py::test_the_error_follows_the_tolerance",
    "lif/test_adjoint.py::test_gradients_are_those_of_central_differences[plain-per_synapse-0.5]",
    "gradcheck/test_lif.py::test_a_state_of_ones_own_and_the_plain_code",
    "lif/test_losses.py::test_integral_of_the_readout_over_a_window_of_each_sample",
    "gated/test_overrides.py::test_the_charge_form_of_a_subclass_of_qif_is_that_of_the_same_membrane_from_nothing",
    "hybrid/test_adjoints.py::test_errors_over_a_leak[lengths0]",
    "hybrid/test_adjoints.py::test_strict_backsolve_refuses",
    "hybrid/test_checkpoints.py::test_a_memory_budget_of_adaptive_steps_holds_the_states[dopri5]",
    "hybrid/test_checkpoints.py::test_a_memory_budget_of_adaptive_steps_holds_the_states[tsit5]",
    "training/test_sweep.py::test_a_killed_sweep_goes_on",
    "training/test_sweep.py::test_a_run_that_fails_is_told_and_stops_no_other",
    "training/test_sweep.py::test_a_stopped_sweep_stops_its_runs_which_save",
    "training/test_sweep.py::test_a_sweep_is_compared_and_recorded",
    "training/test_sweep.py::test_runs_that_are_not_alike_are_not_one_record",
    "training/test_runs.py::test_a_full_disk_ends_with_a_message_and_keeps_what_is_saved",
    "training/test_runs.py::test_a_killed_run_goes_on_to_the_bit[0.9]",
    "training/test_runs.py::test_a_killed_run_goes_on_to_the_bit[0]",
    "training/test_runs.py::test_the_experiment_of_the_docs_page_runs",
    "training/test_runs.py::test_two_processes_have_the_gradient_of_one[of samples]",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    met = Counter()
    for item in items:
        name = item.nodeid.partition("[")[0].removeprefix("tests/")
        if item.nodeid.endswith(SLOW) or met[name] % EVERY.get(name, 1):
            item.add_marker(pytest.mark.slow)
        # Shape checks double the time of a solve: the first case of each test has them, and every slow one.
        item.stash[CHECKED] = not met[name] or item.get_closest_marker("slow") is not None
        met[name] += 1


def pytest_runtest_setup(item):
    config.update("jaxtyping_disable", not item.stash[CHECKED])


@pytest.fixture
def unchecked_shapes():
    """Leave out the shape checks where a test runs thousands of solves: they quadruple its time."""
    config.update("jaxtyping_disable", True)


@pytest.fixture(params=["fused", "plain"])
def kernels(request, monkeypatch):
    """Run a test over both: the fused loops where they cover the network, and torch operations alone."""
    from adjsnn.gated.engine import Engine  # noqa: PLC0415 - after the import hook

    if request.param == "plain":
        monkeypatch.setattr(Engine, "obstacle", lambda *_: "the test wants plain operations")
    return request.param


@pytest.fixture(params=["fused", "plain"])
def lif_kernels(request):
    """Run a test of LIF networks over both: the compiled loops, and the plain event queue."""
    return request.param
