"""Draws docs/models/*.png, a picture of each published model: python docs/draw_models.py [names]

Voltages above, their spikes as ticks over them, and currents below; all from rest.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import adjsnn
from adjsnn import models, plotting
from adjsnn.colours import COLOURS, INK

FOLDER = Path(__file__).parent / "models"
F64 = torch.float64
MOST = 4  # panels in a row


class Panel(NamedTuple):
    """A title, a model, its current as (value, until) in ms, and which state is drawn."""

    title: str
    system: adjsnn.Equations
    steps: Sequence[tuple[float, float]]
    state: str = "v"


class Picture(NamedTuple):
    """Labels of the voltage and of the current, and panels."""

    voltage: str
    current: str
    panels: Sequence[Panel]


def izhikevich() -> Picture:
    shown = {
        "regular spiking": [(0.0, 20.0), (10.0, 220.0)],
        "intrinsically bursting": [(0.0, 20.0), (10.0, 220.0)],
        "chattering": [(0.0, 20.0), (10.0, 220.0)],
        "fast spiking": [(0.0, 20.0), (10.0, 120.0)],
        "thalamo-cortical": [(0.0, 20.0), (-10.0, 100.0), (0.0, 220.0)],
        "resonator": [(0.0, 20.0), (0.2, 120.0), (2.0, 124.0), (0.2, 220.0)],
        "low-threshold spiking": [(0.0, 20.0), (10.0, 220.0)],
        "rebound spike": [(0.0, 20.0), (-15.0, 25.0), (0.0, 120.0)],
    }
    panels = [Panel(kind, models.izhikevich(kind, dtype=F64), steps) for kind, steps in shown.items()]
    return Picture("v (mV)", "I\n(mV/ms)", panels)


def adex() -> Picture:
    panels = [
        Panel(kind, models.adex(kind, dtype=F64), [(0.0, 20.0), (current, 400.0)])
        for kind, current in models.ADEX_CURRENTS.items()
    ]
    return Picture("v (mV)", "I\n(pA)", panels)


def exponential_if() -> Picture:
    steps = [(0.0, 20.0), (1.0, 120.0), (0.0, 150.0)]
    return Picture("v (mV)", "I\n(µA/cm²)", [Panel("exponential", models.exponential_if(dtype=F64), steps)])


def quadratic_if() -> Picture:
    steps = [(0.0, 20.0), (15.0, 90.0), (0.0, 120.0)]
    return Picture("v (1)", "I\n(1)", [Panel("quadratic", models.quadratic_if(dtype=F64), steps)])


def fitzhugh_nagumo() -> Picture:
    steps = [(0.0, 20.0), (0.5, 150.0), (0.0, 200.0)]
    return Picture("v (1)", "I\n(1)", [Panel("FitzHugh–Nagumo", models.fitzhugh_nagumo(dtype=F64), steps)])


def morris_lecar() -> Picture:
    shown = {"hopf": 95.0, "saddle-node": 45.0}
    panels = [
        Panel(kind, models.morris_lecar(kind, dtype=F64), [(0.0, 50.0), (current, 400.0), (0.0, 500.0)])
        for kind, current in shown.items()
    ]
    return Picture("v (mV)", "I\n(µA/cm²)", panels)


def hodgkin_huxley() -> Picture:
    shown = {"squid": (10.0, 80.0), "traub-miles": (1.0, 120.0), "regular spiking": (2.0, 250.0), "fast spiking": (2.0, 250.0)}
    panels = [
        Panel(kind, models.hodgkin_huxley(kind, dtype=F64), [(0.0, 10.0), (current, 0.8 * end), (0.0, end)])
        for kind, (current, end) in shown.items()
    ]
    return Picture("v (mV)", "I\n(µA/cm²)", panels)


def wang_buzsaki() -> Picture:
    steps = [(0.0, 10.0), (1.0, 100.0), (0.0, 120.0)]
    return Picture("v (mV)", "I\n(µA/cm²)", [Panel("Wang–Buzsáki", models.wang_buzsaki(dtype=F64), steps)])


def tsodyks_markram() -> Picture:
    steps = [(0.0, 50.0), (0.02, 550.0), (0.0, 1050.0), (0.02, 1100.0), (0.0, 1200.0)]  # 20 spikes/s, and one later
    shown = ("depressing", "facilitating")
    panels = [Panel(kind, models.tsodyks_markram(kind, dtype=F64), steps, "y") for kind in shown]
    return Picture("y (1)", "rate\n(1/ms)", panels)


def resonate_and_fire() -> Picture:
    pulses = []
    for first, gap in ((0.2, 0.63), (3.0, 0.3)):  # two pulses in phase, and two out of it
        pulses += [(0.0, first), (13.5, first + 0.06), (0.0, first + gap), (13.5, first + gap + 0.06)]
    steps = [*pulses, (0.0, 6.0)]
    return Picture("y (1)", "I\n(1/ms)", [Panel("resonate-and-fire", models.resonate_and_fire(dtype=F64), steps, "y")])


def glif() -> Picture:
    config = {  # the neuron of NEST's glif_psc by default
        "R_input": 1e9 / 9.43, "C": 58.72e-12, "th_inf": 27.17e-3, "dt": 1e-6, "spike_cut_length": 3750,
        "asc_amp_array": [-9.18e-12, -198.94e-12], "asc_tau_array": [1.0 / 3.0, 0.01],
        "AScurrent_reset_method": {"params": {"r": [1.0, 1.0]}},
        "voltage_reset_method": {"params": {"a": 0.2, "b": 18.51e-3}},
        "threshold_dynamics_method": {"params": {"a_spike": 0.37e-3, "b_spike": 9.0, "a_voltage": 5.0, "b_voltage": 90.0}},
    }  # fmt: skip
    steps = [(0.0, 20.0), (350.0, 170.0), (0.0, 200.0)]
    panels = [Panel(f"level {level}", models.glif(level, config, dtype=F64), steps) for level in range(1, 6)]
    return Picture("v (mV above rest)", "I\n(pA)", panels)


PICTURES = {
    made.__name__: made
    for made in (
        izhikevich, adex, exponential_if, quadratic_if, fitzhugh_nagumo, morris_lecar, hodgkin_huxley, wang_buzsaki,
        tsodyks_markram, resonate_and_fire, glif,
    )
}  # fmt: skip


def draw(name: str) -> Path:
    """One picture."""
    picture = PICTURES[name]()
    columns = 3 if len(picture.panels) == 5 else min(MOST, len(picture.panels))
    rows = -(-len(picture.panels) // columns)
    with plotting.style():
        figure = plotting.new_figure(1.2 + (2.3 if columns > 1 else 4.0) * columns, 2.3 * rows)
        grid = figure.add_gridspec(2 * rows, columns, height_ratios=[3.0, 1.0] * rows)
        for k, panel in enumerate(picture.panels):
            row, column = divmod(k, columns)
            above = figure.add_subplot(grid[2 * row, column])
            below = figure.add_subplot(grid[2 * row + 1, column], sharex=above)
            one(above, below, panel)
            above.set_title(panel.title)
            if column == 0:
                above.set_ylabel(picture.voltage)
                below.set_ylabel(picture.current)
            if k + columns >= len(picture.panels):
                below.set_xlabel("time (ms)")
        return plotting.save(figure, FOLDER / f"{name}.png")


def one(above: Any, below: Any, panel: Panel) -> None:
    """Voltage and spikes above, the current below."""
    ends = np.array([until for _, until in panel.steps])
    end = float(ends[-1])
    _, _, _, spikes = solved(panel, np.concatenate([[0.0], ends]))
    sides = np.clip(np.concatenate([spikes - 1e-4, spikes + 1e-4]), 0.0, end)  # of jumps
    ts, u, v, spikes = solved(panel, np.concatenate([np.linspace(0.0, end, 1500), ends, sides]))
    above.plot(ts, v, color=COLOURS[0], lw=0.9)
    top = float(v.max()) + 0.12 * float(np.ptp(v.numpy()))
    above.plot(spikes, torch.full_like(spikes, top), "|", color=INK, ms=5, mew=0.8)
    above.tick_params(labelbottom=False)
    below.step(ts[:-1], u, where="post", color=COLOURS[1], lw=0.9)
    below.set_xlim(0.0, end)


def solved(panel: Panel, times: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Times, the current from each to the next, the state that is drawn, and spikes."""
    ts = torch.tensor(np.unique(times), dtype=F64)
    values, ends = (torch.tensor(x, dtype=F64) for x in zip(*panel.steps, strict=True))
    u = values[torch.bucketize(0.5 * (ts[1:] + ts[:-1]), ends)]
    sol = adjsnn.solve(panel.system, u.view(-1, 1, 1), ts=ts, method="tsit5", rtol=1e-9, atol=1e-10, max_steps=100_000)
    spikes = sol.event_times[0][sol.event_index[0] == 0]
    return ts, u, panel.system.of(sol.y[:, 0], panel.state), spikes


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:] or PICTURES:
        print(draw(name))
