"""What else can go wrong in a layer of generalised LIF neurons."""

from adjsnn.errors import EventError
from adjsnn.lif.layer import Trial

ABOVE = 3  # what a body of compiled code says beside FINE, RUNAWAY and GRAZING
# v - θ over |v| + |v_th| + Σ|h| up to which a neuron counts as at its threshold. Where no reset moves v away from a late spike,
# it is off by its slope times the rounding of that time.
AT_THRESHOLD = 1e-9


def above(trial: Trial, sample: int, neuron: int, time: float) -> EventError:
    return EventError(
        f"neuron {neuron} of layer {trial.layer} in sample {sample} is above its threshold after its reset at {time:g} ms",
        "a reset, or a state at 0 ms, below the threshold v_th + Σ h at the end of the refractory time",
        "a lower v_reset, reset to a voltage instead of by one, or smaller negative jumps of the threshold",
    )
