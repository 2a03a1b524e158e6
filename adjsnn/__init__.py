"""Exact gradients for spiking neural networks, by adjoints integrated backward through time."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import adjsnn.numerics.threads  # noqa: F401  knows the process that loads it, and so what is forked from it
from adjsnn.gradcheck import gradcheck
from adjsnn.solve import solve

if TYPE_CHECKING:
    from adjsnn import interop, losses, remedies, rules, signals
    from adjsnn.adjoints import BPTT, DiscreteAdjoint
    from adjsnn.charge_form import ChargeForm
    from adjsnn.coincidence import coincidence_factor
    from adjsnn.collate import collate_spikes
    from adjsnn.equations import models
    from adjsnn.equations.system import Equations
    from adjsnn.errors import (
        AdjsnnError,
        ConfigurationError,
        EventError,
        GradientCheckError,
        IntegrationError,
        KernelCacheWarning,
        MissingPackageError,
        NotFiniteWarning,
        NotKeptError,
        SilentWarning,
        StepTooLongWarning,
    )
    from adjsnn.gated.gates import Gate, RaisedCosineGate, RectangularGate
    from adjsnn.gated.membranes import LIF, NIF, QIF, Membrane
    from adjsnn.gated.network import GatedState, GatedSynapseNetwork
    from adjsnn.gated.solution import CheckpointedSolution, GatedSolution
    from adjsnn.gradcheck.foreign import judge
    from adjsnn.gradcheck.verdict import JudgeReport
    from adjsnn.hybrid.backsolve import Backsolve, BacksolveWarning
    from adjsnn.hybrid.continuous import ContinuousAdjoint
    from adjsnn.hybrid.forward import ForwardSensitivity
    from adjsnn.hybrid.run import HybridStats
    from adjsnn.hybrid.solution import HybridSolution
    from adjsnn.hybrid.system import HybridSystem
    from adjsnn.lif.adjoint import EventAdjoint
    from adjsnn.lif.conv import Conv2d, LIFConv2d, Pool2d
    from adjsnn.lif.network import LIFNetwork
    from adjsnn.lif.solution import LIFSolution
    from adjsnn.lif.structure import AdaptiveState, LIFState
    from adjsnn.lif.synapses import Synapses
    from adjsnn.numerics.memory import release_memory
    from adjsnn.spikes import SpikeTrains
    from adjsnn.starting import start_from_data

__version__ = "0.2.0"
__all__ = [
    "BPTT",
    "LIF",
    "NIF",
    "QIF",
    "AdaptiveState",
    "AdjsnnError",
    "Backsolve",
    "BacksolveWarning",
    "ChargeForm",
    "CheckpointedSolution",
    "ConfigurationError",
    "ContinuousAdjoint",
    "Conv2d",
    "DiscreteAdjoint",
    "Equations",
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
    "JudgeReport",
    "KernelCacheWarning",
    "LIFConv2d",
    "LIFNetwork",
    "LIFSolution",
    "LIFState",
    "Membrane",
    "MissingPackageError",
    "NotFiniteWarning",
    "NotKeptError",
    "Pool2d",
    "RaisedCosineGate",
    "RectangularGate",
    "SilentWarning",
    "SpikeTrains",
    "StepTooLongWarning",
    "Synapses",
    "coincidence_factor",
    "collate_spikes",
    "gradcheck",
    "interop",
    "judge",
    "losses",
    "models",
    "release_memory",
    "remedies",
    "rules",
    "signals",
    "solve",
    "start_from_data",
]
# Where each name is that is loaded when first asked for: of three kinds of network most programs need one.
_MODULES = {name: f"adjsnn.{name}" for name in ("interop", "losses", "remedies", "rules", "signals")}
_MODULES["models"] = "adjsnn.equations.models"
_HOME = {
    name: f"adjsnn.{module}"
    for module, names in {
        "adjoints": "BPTT DiscreteAdjoint",
        "charge_form": "ChargeForm",
        "coincidence": "coincidence_factor",
        "collate": "collate_spikes",
        "equations.system": "Equations",
        "errors": "AdjsnnError ConfigurationError EventError GradientCheckError IntegrationError KernelCacheWarning "
        "MissingPackageError NotFiniteWarning NotKeptError SilentWarning StepTooLongWarning",
        "gated.gates": "Gate RaisedCosineGate RectangularGate",
        "gated.membranes": "LIF NIF QIF Membrane",
        "gated.network": "GatedState GatedSynapseNetwork",
        "gated.solution": "CheckpointedSolution GatedSolution",
        "gradcheck.foreign": "judge",
        "gradcheck.verdict": "JudgeReport",
        "hybrid.backsolve": "Backsolve BacksolveWarning",
        "hybrid.continuous": "ContinuousAdjoint",
        "hybrid.forward": "ForwardSensitivity",
        "hybrid.run": "HybridStats",
        "hybrid.solution": "HybridSolution",
        "hybrid.system": "HybridSystem",
        "lif.adjoint": "EventAdjoint",
        "lif.network": "LIFNetwork",
        "lif.structure": "AdaptiveState LIFState",
        "lif.conv": "Conv2d LIFConv2d Pool2d",
        "lif.synapses": "Synapses",
        "lif.solution": "LIFSolution",
        "numerics.memory": "release_memory",
        "spikes": "SpikeTrains",
        "starting": "start_from_data",
    }.items()
    for name in names.split()
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
