"""A body that solves ordinary layers and one of arrays that solves generalised ones, as one body of tensors.

A layer with one receptor that has a dimension of its own, and nothing else that is new, goes to the ordinary body.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from adjsnn.lif.glif.arrays import GLIF, GLIFCotangents, GLIFGradients, GLIFRun, GLIFState
from adjsnn.lif.glif.assemble import assembled, carried_back
from adjsnn.lif.layer import Events, LayerCotangents, LayerGradients, LayerRun, Trial, as_array
from adjsnn.lif.structure import AnyState, LIFLayer, LIFState, Structure, four, state_of

Forward = Callable[[LIFLayer, Events, AnyState, Trial], LayerRun]
Backward = Callable[[LIFLayer, Events, AnyState, Trial, LayerRun, LayerCotangents, frozenset[str]], LayerGradients]
GLIFForward = Callable[[GLIF, Events, GLIFState, Trial], GLIFRun]
GLIFBackward = Callable[[GLIF, Events, GLIFState, Trial, GLIFRun, GLIFCotangents, bool], GLIFGradients]
# Need the states along a run.
RATES = frozenset(("tau_mem", "tau_syn", "tau_adapt", "scale_adapt", "tau_th", "scale_th", "tau_follow", "gain_follow"))


def is_ordinary(layer: LIFLayer, own: Structure) -> bool:
    """Whether a layer is one of (2.1), (2.2) with a weight for each pair."""
    return own.ordinary and not layer.adaptive


def both(ordinary: Forward, generalised: GLIFForward) -> Forward:
    """The solve of any layer."""

    def forward(layer: LIFLayer, inputs: Events, start: AnyState, trial: Trial) -> LayerRun:
        own = trial.structure
        if own is None:
            return ordinary(layer, inputs, start, trial)
        if _one_receptor(layer, own):
            run = ordinary(_squeezed(layer), inputs, LIFState(start.v, start.i[:, 0]), trial._replace(structure=None))
            v, i = run.states
            return run._replace(states=LIFState(v, i[:, :, None]))
        run = generalised(assembled(_on_host(layer), own).arrays(), *_arrays(inputs, start, trial))
        states = GLIFState(*map(torch.from_numpy, run.states))
        spikes = Events(*map(torch.from_numpy, run.spikes))
        return LayerRun(spikes, torch.zeros(0), _split(layer, own, states), run, torch.from_numpy(run.speed))

    return forward


def both_back(ordinary: Backward, generalised: GLIFBackward) -> Backward:
    """The adjoint of any layer."""

    def backward(
        layer: LIFLayer,
        inputs: Events,
        start: AnyState,
        trial: Trial,
        run: LayerRun,
        cotangents: LayerCotangents,
        wanted: frozenset[str],
    ) -> LayerGradients:
        own = trial.structure
        if own is None:
            return ordinary(layer, inputs, start, trial, run, cotangents, wanted)
        if _one_receptor(layer, own):
            plain = LIFState(start.v, start.i[:, 0])
            given = cotangents._replace(i=None if cotangents.i is None else cotangents.i[:, :, 0], a=None, h=None)
            found = ordinary(_squeezed(layer), inputs, plain, trial._replace(structure=None), run, given, wanted)
            return found._replace(i=found.i[:, None])
        host = _on_host(layer)
        given = GLIFCotangents(
            as_array(cotangents.time),
            None if cotangents.v is None else as_array(cotangents.v),
            _currents(cotangents, layer, own),
            None if cotangents.h is None else as_array(cotangents.h),
        )
        arrays = assembled(host, own).arrays()
        found = generalised(arrays, *_arrays(inputs, start, trial), run.record, given, bool(wanted & RATES))
        states = _split(layer, own, GLIFState(*(torch.from_numpy(x[None]) for x in (found.v, found.c, found.h))))
        v, i, a, h = (None if x is None else x[0] for x in four(states))
        time, drive = torch.from_numpy(found.time), torch.from_numpy(found.drive)
        assert v is not None
        assert i is not None
        return LayerGradients(carried_back(host, own, found), time, v, i, drive, a, h)

    return backward


def _one_receptor(layer: LIFLayer, own: Structure) -> bool:
    return own.receptors == 1 and is_ordinary(layer, own._replace(receptors=None))


def _squeezed(layer: LIFLayer) -> LIFLayer:
    w_rec = None if layer.w_rec is None else layer.w_rec[0]
    return layer._replace(w_in=layer.w_in[0], w_rec=w_rec, tau_syn=layer.tau_syn[0])


def _on_host(layer: LIFLayer) -> LIFLayer:
    return LIFLayer._make(None if x is None else x.detach().cpu() for x in layer)


def _arrays(inputs: Events, start: AnyState, trial: Trial) -> tuple[Events, GLIFState, Trial]:
    """As bodies of arrays take them; no structure, which the layer's arrays hold."""
    synaptic = start.i if start.i.dim() == 3 else start.i[:, None]
    none = start.v.new_zeros(len(start.v), 0, start.v.shape[1])
    a, h = (none if x is None else x for x in four(start)[2:])
    c = torch.cat([synaptic, a], 1)
    probes, drive, edges = map(as_array, (trial.probes, trial.drive, trial.edges))
    bare = trial._replace(structure=None, probes=probes, drive=drive, edges=edges)
    return Events(*map(as_array, inputs)), GLIFState(as_array(start.v), as_array(c), as_array(h)), bare


def _split(layer: LIFLayer, own: Structure, states: GLIFState) -> AnyState:
    """States at the probes (P, B, …), currents of receptors apart from those that spikes trigger."""
    c = torch.as_tensor(states.c)
    i, a = c[:, :, : own.currents], c[:, :, own.currents :]
    of_spikes = (a, torch.as_tensor(states.h)) if layer.adaptive else (None, None)
    return state_of(torch.as_tensor(states.v), i if own.receptors is not None else i[:, :, 0], *of_spikes)


def _currents(cotangents: LayerCotangents, layer: LIFLayer, own: Structure) -> np.ndarray | None:
    """Cotangents of all currents together."""
    i, a = cotangents.i, cotangents.a
    if i is None and a is None:
        return None
    like = i if i is not None else a
    assert isinstance(like, Tensor)
    shape = (*like.shape[:2], own.currents, like.shape[-1])
    spikes = 0 if layer.tau_adapt is None else len(layer.tau_adapt)
    synaptic = like.new_zeros(shape) if i is None else i.reshape(shape)
    own_spikes = like.new_zeros(*shape[:2], spikes, shape[-1]) if a is None else a
    return as_array(torch.cat([synaptic, own_spikes], 2))
