"""Which networks the compiled loops know, on either kind of machine, and which of them those for the CPU run."""

from adjsnn.gated.cpu import arguments
from adjsnn.gated.gates import Gate, RaisedCosineGate, RectangularGate
from adjsnn.gated.inheritance import unaltered
from adjsnn.gated.membranes import LIF, NIF, QIF, Membrane
from adjsnn.gated.network import GatedTensors

MEMBRANES: dict[type, int] = {NIF: arguments.NIF, LIF: arguments.LIF, QIF: arguments.QIF}
CONSTANTS: dict[type, tuple[str, ...]] = {NIF: (), LIF: ("tau_mem", "v_reset"), QIF: ("tau_v",)}
GATES: dict[type, int] = {RectangularGate: arguments.RECTANGULAR, RaisedCosineGate: arguments.RAISED_COSINE}
MOST_NEURONS = 1024  # beyond, the columns of W_rec no longer stay in a core's cache and whole products win


def uncovered(neuron: Membrane, tensors: GatedTensors) -> str | None:
    """What of the tensors the loops do not cover."""
    if tuple(tensors.constants) != CONSTANTS[type(neuron)]:
        return f"{type(neuron).__name__} has constants {list(tensors.constants)}"
    if not tensors.w_rec.is_cpu:
        return f"the network is on {tensors.w_rec.device}, not on the CPU"
    if tensors.tau_fast.dim() or tensors.tau_slow.dim():
        return "tau_fast and tau_slow differ between neurons"
    if (n := tensors.w_rec.shape[0]) > MOST_NEURONS:
        return f"{n} neurons are more than {MOST_NEURONS}"
    return None


def unlike_the_loops(neuron: Membrane, gate: Gate) -> str | None:
    """What of a membrane or gate is not as the loops have it: a subclass, or what was replaced on an object or its class."""
    if type(neuron) not in MEMBRANES:
        return f"the membrane {type(neuron).__name__} is not one of NIF, LIF, QIF"
    if type(gate) not in GATES:
        return f"the gate {type(gate).__name__} is not one of RectangularGate, RaisedCosineGate"
    for model in (neuron, gate):
        if not unaltered(model):
            return f"attributes of {type(model).__name__} were replaced"
    return None
