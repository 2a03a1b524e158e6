"""Exact gradients for spiking neural networks, by adjoints integrated backward through time."""

from adjsnn import losses, signals
from adjsnn.adjoints import BPTT, DiscreteAdjoint
from adjsnn.charge_form import ChargeForm
from adjsnn.collate import collate_spikes
from adjsnn.errors import (
    AdjsnnError,
    ConfigurationError,
    EventError,
    GradientCheckError,
    IntegrationError,
    KernelCacheWarning,
    MissingPackageError,
    NotKeptError,
    StepTooLongWarning,
)
from adjsnn.gated.gates import Gate, RaisedCosineGate, RectangularGate
from adjsnn.gated.membranes import LIF, NIF, QIF, Membrane
from adjsnn.gated.network import GatedState, GatedSynapseNetwork
from adjsnn.gated.solution import CheckpointedSolution, GatedSolution
from adjsnn.gradcheck import gradcheck
from adjsnn.hybrid.backsolve import Backsolve, BacksolveWarning
from adjsnn.hybrid.continuous import ContinuousAdjoint
from adjsnn.hybrid.forward import ForwardSensitivity
from adjsnn.hybrid.run import HybridStats
from adjsnn.hybrid.solution import HybridSolution
from adjsnn.hybrid.system import HybridSystem
from adjsnn.lif.adjoint import EventAdjoint
from adjsnn.lif.network import LIFNetwork, LIFState
from adjsnn.lif.solution import LIFSolution
from adjsnn.numerics.memory import release_memory
from adjsnn.solve import solve
from adjsnn.spikes import SpikeTrains

__version__ = "0.1.0"
__all__ = [
    "BPTT",
    "LIF",
    "NIF",
    "QIF",
    "AdjsnnError",
    "Backsolve",
    "BacksolveWarning",
    "ChargeForm",
    "CheckpointedSolution",
    "ConfigurationError",
    "ContinuousAdjoint",
    "DiscreteAdjoint",
    "EventAdjoint",
    "EventError",
    "ForwardSensitivity",
    "Gate",
    "GatedSolution",
    "GatedState",
    "GatedSynapseNetwork",
    "GradientCheckError",
    "HybridSolution",
    "HybridStats",
    "HybridSystem",
    "IntegrationError",
    "KernelCacheWarning",
    "LIFNetwork",
    "LIFSolution",
    "LIFState",
    "Membrane",
    "MissingPackageError",
    "NotKeptError",
    "RaisedCosineGate",
    "RectangularGate",
    "SpikeTrains",
    "StepTooLongWarning",
    "collate_spikes",
    "gradcheck",
    "losses",
    "release_memory",
    "signals",
    "solve",
]
