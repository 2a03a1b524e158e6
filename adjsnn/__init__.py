"""Exact gradients for spiking neural networks, by adjoints integrated backward through time."""

from adjsnn import losses, signals
from adjsnn.adjoints.discrete import BPTT, DiscreteAdjoint
from adjsnn.errors import (
    AdjsnnError,
    ConfigurationError,
    EventError,
    GradientCheckError,
    IntegrationError,
    StepTooLongWarning,
)
from adjsnn.gradcheck import gradcheck
from adjsnn.integrate.memory import release_memory
from adjsnn.solution import GatedSolution
from adjsnn.solve import solve
from adjsnn.spikes import SpikeTrains
from adjsnn.systems.gated_network import GatedState, GatedSynapseNetwork
from adjsnn.systems.gates import Gate, RaisedCosineGate, RectangularGate
from adjsnn.systems.membranes import LIF, NIF, QIF, Membrane

__version__ = "0.1.0"
__all__ = [
    "BPTT",
    "LIF",
    "NIF",
    "QIF",
    "AdjsnnError",
    "ConfigurationError",
    "DiscreteAdjoint",
    "EventError",
    "Gate",
    "GatedSolution",
    "GatedState",
    "GatedSynapseNetwork",
    "GradientCheckError",
    "IntegrationError",
    "Membrane",
    "RaisedCosineGate",
    "RectangularGate",
    "SpikeTrains",
    "StepTooLongWarning",
    "gradcheck",
    "losses",
    "release_memory",
    "signals",
    "solve",
]
