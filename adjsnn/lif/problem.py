"""What a LIF network is solved for: everything that an adjoint runs on, checked at the door."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from adjsnn.bodies import Ran
from adjsnn.lif.layer import Drive, Events
from adjsnn.lif.network import AnyState, LIFLayer, state_of
from adjsnn.lif.readout import Readout
from adjsnn.lif.run import LayerResult, LIFTrial
from adjsnn.lif.solution import LIFSolution


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

    def solution(self, results: Sequence[LayerResult]) -> LIFSolution:
        """The solution of what was found of each layer."""
        trial, like = self.trial, self.layers[0].w_in
        probes = trial.probes[:-1]
        return LIFSolution(
            t_end=trial.t_end,
            ts=probes.to(like, copy=True),
            v=[r.v[:-1] for r in results],
            i=[r.i[:-1] for r in results],
            a=[None if r.a is None else r.a[:-1] for r in results],
            h=[None if r.h is None else r.h[:-1] for r in results],
            final_state=[
                state_of(r.v[-1].clone(), r.i[-1].clone(), *(None if x is None else x[-1].clone() for x in (r.a, r.h)))
                for r in results
            ],
            _layers=self.layers,
            _results=list(results),
            _inputs=(self.time, Events(trial.first, self.time.detach().double(), trial.source)),
            _y0=self.y0,
            _times=probes.to(like, copy=True),
            _readout=self.readout,
            _ran=self.ran,
            _drive=self.drive,
            _structures=trial.structures,
            _voltages_read=trial.voltages_read,
        )
