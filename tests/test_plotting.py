"""Figures: of their own where no axes are given, without a change of the user's settings, and written as the name says."""

import subprocess
import sys
from typing import cast

import matplotlib as mpl
import pytest
import torch
from matplotlib.collections import LineCollection

import adjsnn
from adjsnn import ConfigurationError, SpikeTrains, plotting


@pytest.fixture(scope="module")
def sol():
    lif = adjsnn.LIFNetwork(
        5, (12, 3), generator=torch.Generator().manual_seed(0), tau_th=(None, [15.0]), jump_th=(None, [0.4])
    )
    x = SpikeTrains.poisson(torch.full((2, 5), 60.0), 60.0, generator=torch.Generator().manual_seed(1))
    return adjsnn.solve(lif, x, ts=torch.linspace(0.0, 60.0, 61), kernels="plain")


HISTORY = {name: [4.0, 2.0, 1.0] for name in ("iteration", "train_cost", "cost", "gradient_norm", "spikes_per_s", "r2")}


def test_the_settings_of_matplotlib_are_the_users(sol, tmp_path):
    before = dict(mpl.rcParams)
    plotting.save(plotting.raster(sol), tmp_path / "raster.png")
    plotting.event_diagnostics(sol, 0)
    plotting.history(HISTORY)
    assert dict(mpl.rcParams) == before
    with plotting.style():
        assert mpl.rcParams["legend.frameon"] is False


@pytest.mark.slow
def test_importing_changes_no_setting():
    code = "import matplotlib as m; a = dict(m.rcParams); import adjsnn.plotting; print(a == dict(m.rcParams))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"


@pytest.mark.parametrize(("name", "begins"), [("a.pdf", b"%PDF"), ("a.svg", b"<?xml"), ("a.PNG", b"\x89PNG")])
def test_files_are_of_the_kind_that_their_name_says(sol, name, begins, tmp_path):
    axes = plotting.layers_raster({"hidden": sol.layer_spikes[0]})
    for drawn in (axes, plotting.new_figure(2.0, 2.0)):
        assert plotting.save(drawn, tmp_path / name).read_bytes().startswith(begins)


def test_another_ending_is_refused(sol, tmp_path):
    with pytest.raises(ConfigurationError, match=r"raster\.doc.*raster\.pdf"):
        plotting.save(plotting.raster(sol), tmp_path / "raster.doc")


def test_voltages_with_their_thresholds_and_spikes(sol):
    axes = plotting.voltages(sol, sample=1, neurons=[2, 0])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["neuron 2", "neuron 0"]
    threshold, voltage, *_ = axes.lines
    assert voltage.get_ydata() == pytest.approx(sol.v[-1][:, 1, 2].detach().numpy())
    assert threshold.get_ydata() == pytest.approx(sol.threshold()[:, 1, 2].detach().numpy())
    times = [float(segment[0, 0]) for segment in cast(LineCollection, axes.collections[0]).get_segments()]
    assert times == pytest.approx([t for t, n in sol.layer_spikes[-1].to_list()[1] if n == 2])
    most = int(sol.layer_counts(0)[0].argmax())
    assert plotting.voltages(sol, 0).get_yticklabels()[0].get_text() == f"neuron {most}"


def test_what_voltages_need(sol):
    lif = adjsnn.LIFNetwork(5, (3,))
    with pytest.raises(ConfigurationError, match="without times ts"):
        plotting.voltages(adjsnn.solve(lif, SpikeTrains.from_list([[(1.0, 0)]], n_neurons=5, t_max=9.0), kernels="plain"))
    with pytest.raises(ConfigurationError, match="neurons=7"):
        plotting.voltages(sol, neurons=[7])


def test_axes_that_are_given_are_drawn_into(sol):
    with plotting.style():
        axes = plotting.new_figure(4.0, 3.0).subplots()
    assert plotting.raster(sol, axes=axes) is axes
    assert plotting.raster(sol).figure is not plotting.raster(sol).figure


def test_panels_of_a_history_stand_in_rows_and_have_plain_numbers():
    figure = plotting.history(HISTORY)
    rows = {round(axes.get_position().y0, 2) for axes in figure.axes}
    assert len(figure.axes) == 4
    assert len(rows) == 2
    assert min(axes.get_position().width * figure.get_figwidth() for axes in figure.axes) > 2.0  # inches
    figure.canvas.draw()
    labels = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert {"1", "2"} <= set(labels)
    assert not any("mathdefault" in label for label in labels)


def test_a_raster_of_a_trial_of_no_length_is_empty():
    lif = adjsnn.LIFNetwork(5, 3)
    axes = plotting.raster(adjsnn.solve(lif, SpikeTrains.latency(torch.zeros(1, 5), 0.0), kernels="plain"))
    assert axes.get_title("left") == "spikes, 0 per second and neuron"


@pytest.mark.parametrize(("options", "label"), [({}, "current"), ({"unit": "1/ms"}, "current (1/ms)")])
def test_currents_name_their_unit(options, label):
    ts = torch.arange(8.0)
    assert plotting.balanced_currents(ts, ts.sin(), ts.cos(), **options).get_ylabel() == label
