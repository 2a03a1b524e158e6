"""Exact gradients for spiking neural networks, by adjoints integrated backward through time."""

from adjsnn.adjoints.discrete import BPTT, DiscreteAdjoint
from adjsnn.errors import (
    AdjsnnError,
    ConfigurationError,
    EventError,
    GradientCheckError,
    IntegrationError,
    StepTooLongWarning,
)
from adjsnn.solve import solve
from adjsnn.systems.gated_network import GatedState, GatedSynapseNetwork
from adjsnn.systems.gates import Gate, RaisedCosineGate, RectangularGate
from adjsnn.systems.membranes import LIF, NIF, QIF, Membrane
