"""Figures of networks and trainings. Needs matplotlib, in the extra `experiments`.

Each function draws into `axes`, or where none are given into those of a new figure, and returns them; `save(axes, "name.pdf")`
writes the picture. The settings of matplotlib stay as they are: `with style():` has those that are used here.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from adjsnn.checks import Count, Number, count, index, positive
from adjsnn.colours import COLOURS, INK
from adjsnn.errors import ConfigurationError, MissingPackageError
from adjsnn.solutions import ReadoutSolution, SpikingSolution, check_face
from adjsnn.spikes import SpikeTrains

if TYPE_CHECKING:
    from adjsnn.lif.solution import LIFSolution

try:
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
except ImportError as error:
    raise MissingPackageError(error.name, "experiments") from error

ABOVE = {"loc": "lower right", "bbox_to_anchor": (1.0, 0.97), "borderaxespad": 0.0}  # a legend over the axes, off the data
BESIDE = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5), "borderaxespad": 0.0}  # and one to their right
STYLE: dict[Any, Any] = {
    "figure.dpi": 110,
    "savefig.dpi": 160,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,  # text that stays text
}
FORMATS = (".pdf", ".svg", ".png")
PANELS = 3  # of `history` in a row


@contextmanager
def style() -> Iterator[None]:
    """The settings of matplotlib that figures here are made with, for as long as the context lasts; also a decorator."""
    with mpl.rc_context(STYLE):
        yield


@style()
def new_figure(width: Number, height: Number) -> Figure:
    """An empty figure of the given size in inches that needs no display."""
    inches = [positive(name, x, "a positive length in inches") for name, x in (("width", width), ("height", height))]
    return Figure(figsize=(inches[0], inches[1]))


@style()
def save(drawn: Figure | Axes, path: str | Path) -> Path:
    """Write a figure, or the one that axes are in, to a .pdf, .svg or .png file.

    Raises:
        ConfigurationError: another ending.
        OSError: a place that cannot be written to.
    """
    place = Path(path)
    if place.suffix.lower() not in FORMATS:
        raise ConfigurationError(f"a picture {place.name}", f"one of {', '.join(FORMATS)}", f"{place.with_suffix('.pdf').name}")
    figure = drawn if isinstance(drawn, Figure) else drawn.get_figure(root=True)
    if not isinstance(figure, Figure):
        raise ConfigurationError("axes of no figure", "axes that something was drawn into", "a function of adjsnn.plotting")
    figure.savefig(place)
    return place


@style()
def readout(sol: ReadoutSolution, target: Tensor, sample: Count = 0, *, axes: Axes | None = None) -> Axes:
    """Readout against target of one sample, in the colours of the channels."""
    axes = _axes(axes, 7.0, 2.4)
    sample, times = _sample(sample, target.shape[1]), _numpy(sol.ts)
    few = target.shape[2] <= 3
    for channel in range(target.shape[2]):
        colour = COLOURS[channel % len(COLOURS)]
        axes.plot(
            times,
            _numpy(target[:, sample, channel]),
            color=INK,
            lw=1.6,
            alpha=0.35,
            label="target" if channel == 0 else None,
        )
        label = f"readout {channel + 1}" if few else None
        if channel == 0 and not few:
            label = f"readout, {target.shape[2]} channels"
        axes.plot(times, _numpy(sol.readout[:, sample, channel]), color=colour, lw=1.0, label=label)
    axes.set(xlabel="time (ms)", ylabel="readout (a.u.)", xlim=(times[0], times[-1]))
    axes.legend(ncols=4, fontsize=7, **ABOVE)
    return axes


@style()
def raster(
    sol: SpikingSolution, sample: Count = 0, order: Tensor | None = None, *, layer: Count = -1, axes: Axes | None = None
) -> Axes:
    """Spikes of one sample, of the last layer: one row per neuron, sorted by `order`; those at a lower threshold in another
    colour."""
    axes, spikes = _axes(axes, 7.0, 3.0), spikes_of(sol, layer)
    sample = _sample(sample, spikes.batch)
    spiked = spikes.idx[sample] >= 0
    idx, times, sign = (x[sample][spiked].cpu() for x in (spikes.idx, spikes.time, spikes.sign))
    rows = idx if order is None else torch.argsort(order.cpu())[idx]
    two_sided = bool((sign < 0).any())
    for value, colour, name in ((1, INK, "at +threshold"), (-1, COLOURS[1], "at -threshold")):
        chosen = sign == value
        axes.scatter(_numpy(times[chosen]), _numpy(rows[chosen]), marker="|", s=14, lw=0.8, color=colour, label=name)
    duration = spikes.t_max / 1000.0
    rate = len(times) / (spikes.n_neurons * duration) if duration > 0.0 else 0.0
    axes.set(xlabel="time (ms)", ylabel="neuron", xlim=(0, spikes.t_max or 1.0), ylim=(-0.8, spikes.n_neurons - 0.2))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(f"spikes, {rate:.0f} per second and neuron", loc="left")
    if two_sided:
        axes.legend(fontsize=7, **BESIDE)
    return axes


@style()
def voltages(
    sol: "LIFSolution", layer: Count = -1, sample: Count = 0, neurons: Sequence[int] | None = None, *, axes: Axes | None = None
) -> Axes:
    """Voltages of some neurons of a LIF layer at the times ts, each on a row of its own, with threshold and spikes.

    Args:
        sol: the solution, of a solve with ts.
        layer: its number; default the last.
        sample: which.
        neurons: their numbers; default the five that spike most.
        axes: to draw into; default those of a new figure.

    Raises:
        ConfigurationError: a solve without times ts, or neurons that are not there.
    """
    check_face(sol, "threshold", "those of LIF networks")
    k = index("layer", layer, len(sol.layer_spikes))
    spikes = sol.layer_spikes[k]
    sample, times = _sample(sample, spikes.batch), _numpy(sol.ts)
    if len(times) < 2:
        raise ConfigurationError("voltages of a solve without times ts", "times to draw them at", "solve(..., ts=...)")
    counts = sol.layer_counts(k)[sample]
    most = torch.argsort(counts, descending=True, stable=True)[:5].tolist()
    chosen = most if neurons is None else [index("neurons", n, spikes.n_neurons) for n in neurons]
    v, threshold = (_numpy(x[:, sample]) for x in (sol.v[k], sol.threshold(k)))
    both = np.stack([v[:, chosen], threshold[:, chosen]])
    low, high = both.min(initial=0.0), both.max(initial=0.0)
    step, axes = 1.25 * (high - low), _axes(axes, 7.0, 1.0 + 0.7 * len(chosen))
    for row, n in enumerate(chosen):
        base = -row * step
        axes.plot(times, base + threshold[:, n], color=COLOURS[1], lw=0.7, ls="--", label=None if row else "threshold")
        axes.plot(times, base + v[:, n], color=COLOURS[0], lw=0.9, label=None if row else "voltage")
        own = _numpy(spikes.time[sample][spikes.idx[sample] == n])
        axes.vlines(own, base + high, base + high + 0.12 * step, color=INK, lw=0.9, label="" if row else "spike")
    axes.set_yticks([-row * step for row in range(len(chosen))], [f"neuron {n}" for n in chosen])
    axes.set(xlabel="time (ms)", xlim=(times[0], times[-1]), ylim=(low - (len(chosen) - 0.9) * step, high + 0.2 * step))
    axes.legend(fontsize=7, **BESIDE)
    return axes


def spikes_of(sol: SpikingSolution, layer: Count = -1) -> SpikeTrains:
    """Spikes of a layer of a solution."""
    check_face(sol, "layer_counts", "those of networks")
    return sol.layer_spikes[index("layer", layer, len(sol.layer_spikes))]


@style()
def layers_raster(trains: dict[str, SpikeTrains], sample: Count = 0, *, axes: Axes | None = None) -> Axes:
    """Spikes of one sample of several populations above each other, the first at the bottom, one row per neuron.

    A population of few neurons has taller rows.
    """
    base, t_max, ticks, axes = 0.0, 0.0, [], _axes(axes, 7.0, 3.6)
    for colour, (name, spikes) in zip((COLOURS[2], INK, COLOURS[1], *COLOURS[3:]), trains.items(), strict=False):
        height = max(1.0, 30.0 / spikes.n_neurons)
        sample = _sample(sample, spikes.batch)
        spiked = spikes.idx[sample] >= 0
        rows = base + (spikes.idx[sample][spiked].cpu() + 0.5) * height
        size, width = (14.0, 0.8) if height == 1.0 else (60.0, 1.4)
        axes.scatter(_numpy(spikes.time[sample][spiked]), _numpy(rows), marker="|", color=colour, s=size, lw=width)
        ticks.append((base + 0.5 * height * spikes.n_neurons, f"{name}\n({spikes.n_neurons})"))
        base += height * spikes.n_neurons
        axes.axhline(base, color=INK, lw=0.4)
        t_max = max(t_max, spikes.t_max)
    axes.set(xlabel="time (ms)", xlim=(-0.01 * t_max, t_max), ylim=(0.0, base))
    axes.set_yticks([middle for middle, _ in ticks], [name for _, name in ticks])
    axes.tick_params(axis="y", length=0)
    return axes


@style()
def balanced_currents(
    ts: Tensor,
    external: Tensor,
    recurrent: Tensor,
    *,
    window: Number = 5.0,
    title: str = "currents into a neuron",
    unit: str = "",
    axes: Axes | None = None,
) -> Axes:
    """External and recurrent current into one neuron at times ts, each (T,), and their sum, averaged over `window` ms.

    `unit` is that of the currents, for their axis.
    The title has the correlation of the two averaged currents: -1 is perfect balance.
    """
    axes = _axes(axes, 7.0, 2.4)
    window, dt = positive("window", window), float(ts[1] - ts[0])
    kernel = np.ones(max(1, round(window / dt)))
    kernel /= kernel.sum()
    smooth = [np.convolve(_numpy(x), kernel, mode="valid") for x in (external, recurrent)]
    times = _numpy(ts)[: len(smooth[0])] + (len(kernel) - 1) / 2 * dt
    axes.plot(times, smooth[0], color=COLOURS[0], lw=1.2, label="external")
    axes.plot(times, smooth[1], color=COLOURS[1], lw=1.2, label="recurrent")
    axes.plot(times, smooth[0] + smooth[1], color=INK, lw=1.0, label="sum")
    correlation = float(np.corrcoef(smooth[0], smooth[1])[0, 1])
    axes.axhline(0.0, color=INK, lw=0.4)
    axes.set(xlabel="time (ms)", ylabel=f"current ({unit})" if unit else "current", xlim=(0.0, float(ts[-1])))
    axes.set_title(loc="left", label=f"{title}, {window:g} ms averages: correlation {correlation:.2f}")
    axes.legend(fontsize=7, **BESIDE)
    return axes


@style()
def learnt_against_predicted(learnt: Tensor, predicted: Tensor, name: str, formula: str, *, axes: Axes | None = None) -> Axes:
    """Scatter of learnt against predicted weights with the identity line; the title has their correlation."""
    axes = _axes(axes, 3.5, 3.5)
    x, y = _numpy(predicted).ravel(), _numpy(learnt).ravel()
    correlation = float(np.corrcoef(x, y)[0, 1])
    reach = 1.05 * max(np.abs(x).max(), np.abs(y).max(), 1e-12)
    axes.plot([-reach, reach], [-reach, reach], color=INK, lw=0.6, ls="--", label="identity")
    axes.scatter(x, y, s=7, alpha=0.6, lw=0, color=COLOURS[0])
    axes.set(xlabel=formula, ylabel=name, xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axes.set_title(f"correlation {correlation:.3f}")
    axes.legend(loc="upper left", fontsize=7)
    return axes


@style()
def learning_curves(
    metrics: dict[str, list[float]],
    columns: dict[str, str],
    *,
    ylabel: str,
    log: bool = True,
    step: str = "iteration",
    axes: Axes | None = None,
) -> Axes:
    """Columns of a metrics.csv against the iteration, or what `step` calls it; `columns` maps a column to its label."""
    axes = _axes(axes, 4.2, 3.0)
    for colour, (column, label) in zip(COLOURS, columns.items(), strict=False):
        axes.plot(metrics["iteration"], metrics[column], color=colour, lw=1.2, label=label)
    if log:
        _logarithmic(axes, "y")
    axes.set(xlabel=step, ylabel=ylabel)
    axes.legend(fontsize=7)
    return axes


@style()
def event_diagnostics(sol: SpikingSolution, layer: Count = -1) -> Figure:
    """What the spikes of a solution are like: how fast they cross the threshold, how far apart, and who spikes.

    The gradient of a spike time goes as 1 / |dv/dt|, so a tail to the left of the first panel is what makes gradients large.
    """
    trains, layer = spikes_of(sol, layer), count("layer", layer, -1_000)
    speed, intervals = _numpy(sol.layer_speeds(layer)), _intervals(trains)
    rates = _numpy(sol.layer_counts(layer).double().mean(0)) * 1000.0 / sol.t_end
    figure = new_figure(9.0, 2.8)
    left, middle, right = figure.subplots(1, 3)
    for axes, values, label in (
        (left, speed[speed > 0.0], "|dv/dt| at the spike (1/ms)"),
        (middle, intervals[intervals > 0.0], "interval between spikes (ms)"),
    ):
        if len(values):
            axes.hist(values, bins=np.geomspace(values.min(), values.max() * 1.001, 40).tolist(), color=COLOURS[0])
            _logarithmic(axes, "x")
        axes.set(xlabel=label, ylabel="spikes")
    right.bar(np.arange(len(rates)), np.sort(rates)[::-1], width=1.0, color=COLOURS[0])
    right.set(xlabel="neuron, by rate", ylabel="spikes/s", xlim=(-0.5, len(rates) - 0.5))
    right.set_title(f"{int((rates == 0.0).sum())} of {len(rates)} silent", loc="left")
    return figure


def _intervals(trains: SpikeTrains) -> np.ndarray:
    """Intervals between successive spikes of each neuron in each sample, ms."""
    sample, place = (trains.idx >= 0).nonzero(as_tuple=True)
    which = _numpy(sample * trains.n_neurons + trains.idx[sample, place])
    order = np.argsort(which, kind="stable")
    times = _numpy(trains.time[sample, place])[order]
    return np.diff(times)[np.diff(which[order]) == 0]


@style()
def history(metrics: dict[str, list[float]]) -> Figure:
    """How a training went, from a metrics.csv: task, cost, gradient norm, spikes, and the slowest spike met."""
    shown = {name: np.asarray(values) for name, values in metrics.items()}
    if "accuracy" in shown:
        shown["wrong"] = np.maximum(100.0 * (1.0 - shown["accuracy"]), 0.02)  # a logarithm has no 0
    if "r2" in shown:
        shown["1 - R²"] = 1.0 - shown["r2"]
    panels = [
        (("wrong",), "wrong on validation (%)", True),
        (("1 - R²",), "1 - R² on validation", True),
        (("gamma",), "Γ on validation", False),
        (("train_cost", "cost", "loss"), "cost", True),
        (("gradient_norm",), "norm of the gradient", True),
        (("spikes_per_s",), "spikes/s per neuron", False),
        (("hidden_spikes",), "spikes per trial and neuron", False),
        (("min_speed_at_spike",), "smallest |dv/dt|\nat a spike (1/ms)", True),
    ]
    present = [([name for name in names if name in shown], label, log) for names, label, log in panels]
    present = [panel for panel in present if any(np.isfinite(shown[name]).any() for name in panel[0])]
    rows, columns = -(-max(len(present), 1) // PANELS), min(max(len(present), 1), PANELS)
    figure = new_figure(3.3 * columns, 2.6 * rows)
    labels = {"train_cost": "training objective", "cost": "validation", "loss": "validation"}
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[max(len(present), 1) :]:
        axes.remove()
    for axes, (names, label, log) in zip(panels, present, strict=False):
        for colour, name in zip(COLOURS, names, strict=False):
            axes.plot(shown["iteration"], shown[name], color=colour, lw=1.0, label=labels.get(name))
        if log and all(np.nanmin(shown[name]) > 0.0 for name in names):
            _logarithmic(axes, "y")
        axes.set(xlabel="step", ylabel=label)
        if len(names) > 1:
            axes.legend(fontsize=7)
    return figure


def _axes(axes: Axes | None, width: float, height: float) -> Axes:
    """The axes that are given, or those of a new figure."""
    return new_figure(width, height).subplots() if axes is None else axes


def _logarithmic(axes: Axes, which: Literal["x", "y"]) -> None:
    """A logarithmic axis with numbers in plain digits: 1, 2 and 5 of each decade where there are few of these."""
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis: Axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = sorted(axes.get_xlim() if which == "x" else axes.get_ylim())
    decades = np.log10(high / low)
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _sample(sample: Count, batch: int) -> int:
    """Number of a sample that is there."""
    number = count("sample", sample, -batch, f"a sample of {batch}", "sample=0")
    if number >= batch:
        raise ConfigurationError(f"sample={number}", f"a sample of {batch}", "sample=0")
    return number


def _numpy(x: Tensor) -> np.ndarray:
    return x.detach().cpu().numpy()
