"""What a LIF network is solved for: everything that an adjoint runs on, checked at the door."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from adjsnn.bodies import Ran
from adjsnn.lif.layer import Drive, Events
from adjsnn.lif.readout import Readout
from adjsnn.lif.run import LayerResult, LIFTrial
from adjsnn.lif.solution import LIFSolution
from adjsnn.lif.structure import AnyState, LIFLayer


@dataclass(frozen=True)
class LIFProblem:
    """A LIF network and its trial.

    Attributes:
        trial: what is solved over, beside tensors.
        layers: parameters of each layer, copies on the tape.
        time: times of the input spikes in flat columns, (S,), ms.
        y0: initial state of each layer, each field (B, N_l), copies on the tape.
        drive: W_in u of the first layer, where there are analog currents.
        readout: of the last layer, where there is one, its weights a copy on the tape.
        ran: which body the trial's is, and why.
        dt: the step of the currents and of a clock, ms; None without either.
    """

    trial: LIFTrial
    layers: list[LIFLayer]
    time: Tensor
    y0: list[AnyState]
    drive: Drive | None
    readout: Readout | None
    ran: Ran
    dt: float | None = None

    @cached_property
    def inputs(self) -> Events:
        """The input spikes, without a tape; their times are a copy."""
        return Events(self.trial.first, self.time.detach().to(torch.float64, copy=True), self.trial.source)

    def solution(self, results: Sequence[LayerResult]) -> LIFSolution:
        """The solution of what was found of each layer."""
        trial, like = self.trial, self.layers[0].w_in
        probes = trial.probes[:-1]
        return LIFSolution(
            t_end=trial.t_end,
            ts=probes.to(like, copy=True),
            _layers=self.layers,
            _results=list(results),
            _inputs=(self.time, self.inputs),
            _y0=self.y0,
            _times=probes.to(like, copy=True),
            _readout=self.readout,
            _ran=self.ran,
            _drive=self.drive,
            _structures=trial.structures,
            _voltages_read=trial.voltages_read,
        )
