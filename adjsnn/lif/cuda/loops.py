"""Connects the GPU loops of LIF layers to the engine; they are imported when first used, since they load the compiler."""

from collections.abc import Sequence

from adjsnn.lif.layer import Events, LayerCotangents, LayerGradients, LayerRun, Trial
from adjsnn.lif.structure import AnyState, LIFLayer
from adjsnn.numerics import gpu


def obstacle(layers: Sequence[LIFLayer]) -> str | None:
    """Why the loops cannot solve a network's layers; asked by "auto" in every solve of a network on a GPU."""
    if (why := gpu.obstacle(layers[0].w_in.device)) is not None:
        return why
    for layer in layers:
        if layer.w_rec is not None and any(x is not None and x.dim() > 1 for x in (layer.delays, layer.rec_delays)):
            return "recurrent layers with delays per synapse have no loops for a GPU"
    return None


def forward(layer: LIFLayer, inputs: Events, start: AnyState, trial: Trial) -> LayerRun:
    """Solve a layer for every sample, from its state (B, N) at time 0; as `lif.plain.forward`, of tensors on a GPU.

    Raises:
        EventError: a neuron spikes more often than trial.limit.
    """
    if layer.w_rec is None:
        from adjsnn.lif.cuda.feedforward_run import forward  # noqa: PLC0415
    else:
        from adjsnn.lif.cuda.recurrent_run import forward  # noqa: PLC0415
    return forward(layer, inputs, start, trial)


def backward(
    layer: LIFLayer,
    inputs: Events,
    start: AnyState,
    trial: Trial,
    run: LayerRun,
    cotangents: LayerCotangents,
    wanted: frozenset[str],
) -> LayerGradients:
    """Gradients of a layer; as `lif.plain_adjoint.backward`, of tensors on a GPU. Samples are summed in one order.

    Raises:
        EventError: the loss depends on a spike that touches its threshold without crossing it.
    """
    if layer.w_rec is None:
        from adjsnn.lif.cuda.feedforward_run import backward  # noqa: PLC0415
    else:
        from adjsnn.lif.cuda.recurrent_run import backward  # noqa: PLC0415
    return backward(layer, inputs, start, trial, run, cotangents, bool(wanted & {"tau_mem", "tau_syn"}))
