"""LIF networks as graphs of NIR and back: what `nir` leads to; only it imports this module, which needs the package nir."""

from collections.abc import Mapping, Sequence
from functools import partial
from os import PathLike, fspath
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor

from adjsnn.checks import Number, finite, kind, positive
from adjsnn.errors import ConfigurationError
from adjsnn.interop.nir_graph import Chain, Walk
from adjsnn.interop.nir_maps import Shape
from adjsnn.interop.nir_maps import nodes as nodes_of_maps
from adjsnn.interop.nir_numbers import (
    SILENT,
    Dialect,
    Form,
    Numbers,
    Readout,
    as_form,
    as_numbers,
    dialect_of,
    exact,
    lost,
    readout_form,
    readout_numbers,
)
from adjsnn.interop.nir_targets import TARGETS, check_target
from adjsnn.lif.conv import Conv2d, LIFConv2d, Pool2d
from adjsnn.lif.network import COMPONENTS, FOLLOWING, LIFNetwork
from adjsnn.lif.structure import Structure
from adjsnn.lif.synapses import Synapses
from adjsnn.shapes import refuse_meta

OURS = "adjsnn"  # the key of what is ours in metadata
UNREADABLE = (OSError, KeyError, TypeError, ValueError, AssertionError, AttributeError, IndexError, RuntimeError)


def written(net: object, target: str, spike: str | None, dt: Number | None, inputs: str) -> nir.NIRGraph:
    """`to_nir`."""
    if not isinstance(net, LIFNetwork):
        raise ConfigurationError(
            f"net of type {type(net).__name__}",
            "a LIFNetwork, since NIR has no node for other neurons",
            "adjsnn.LIFNetwork(...)",
        )
    refuse_meta(net)
    if target not in TARGETS:
        raise ConfigurationError(f"target={target!r}", f"one of {list(TARGETS)}", 'target="equation"')
    step = None if dt is None else positive("dt", dt, "a positive step in ms", "dt=0.1")
    spike = ("impulse" if target == "equation" else "sample") if spike is None else spike
    dialect = dialect_of(spike, step, inputs, target)
    layers = [_numbers(net, k, dialect.inputs) for k in range(len(net.layers))]
    readout = None
    if net.w_out is not None:
        readout = Readout(_array("w_out", net.w_out), net.tau_out)
    if target != "equation":
        if spike != "sample" or step is None or inputs != "spikes":
            raise ConfigurationError(
                f"spike={spike!r}, dt={dt}, inputs={inputs!r} for target={target!r}", "samples of spikes at its step", "dt=0.1"
            )
        check_target(target, layers, readout is not None, step)
    return _graph(net, layers, readout, dialect)


def _graph(net: LIFNetwork, layers: Sequence[Numbers], readout: Readout | None, dialect: Dialect) -> nir.NIRGraph:
    shape: Shape = net.shape if isinstance(net, LIFConv2d) else (net.n_in,)
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input({"input": np.array(shape)})}
    edges: list[tuple[str, str]] = []
    here, dtype = "input", str(net.w_in[0].dtype).removeprefix("torch.")

    def behind(name: str, node: nir.NIRNode, before: str) -> str:
        nodes[name] = node
        edges.append((before, name))
        return name

    def flat(name: str, before: str, shape: Shape) -> str:
        return before if len(shape) == 1 else behind(name, nir.Flatten({"input": np.array(shape)}, 0, -1), before)

    for k, layer in enumerate(layers):
        form, name = as_form(layer, dialect), f"layer{k}"
        kept = lost(layer, as_numbers(form, dialect), dtype)
        rows = {field: x.reshape(layer.shape) for field, x in form.neuron.items()}
        parameters: dict[str, Any] = {**rows, "metadata": {OURS: kept} if kept else {}}
        neuron = getattr(nir, form.kind)(**parameters)
        shared = layer._replace(w_in=form.weight).shared
        if shared is None:
            here, shape = flat(f"{name}_flatten", here, shape), (int(np.prod(shape)),)
        if form.delay is not None:
            here = behind(f"{name}_delay", nir.Delay(form.delay.reshape(shape)), here)
        for end, node in _dense(form) if shared is None else nodes_of_maps(shared, form.added):
            here = behind(f"{name}_{end}", node, here)
        if form.synapse is not None:
            synapse = {field: x.reshape(layer.shape) for field, x in form.synapse.items()}
            here = behind(f"{name}_synapse", nir.LI(**dict[str, Any](synapse)), here)
        into, here = here if form.synapse is not None else name, behind(name, neuron, here)
        if form.recurrent is not None:
            back = here if form.rec_delay is None else behind(f"{name}_recurrent_delay", nir.Delay(form.rec_delay), here)
            edges.append((behind(f"{name}_recurrent", nir.Linear(form.recurrent), back), into))
        shape = layer.shape
    if readout is not None:
        weight, tau, r = readout_form(readout, dialect)
        kept = lost(readout, readout_numbers(weight, tau, r, dialect), dtype)
        here = behind("readout_weight", nir.Linear(weight), flat("readout_flatten", here, shape))
        node = nir.LI(tau=tau, r=r, v_leak=np.zeros_like(tau), metadata={OURS: kept} if kept else {})
        here = behind("readout", node, here)
    behind("output", nir.Output({"output": np.array(shape if readout is None else (len(readout.weight),))}), here)
    said: dict[str, Any] = {"unit_of_time": "s", "spike": dialect.spike, "inputs": dialect.inputs, "target": dialect.target}
    said |= {} if dialect.dt is None else {"dt_ms": dialect.dt}
    said["dtype"] = dtype
    return nir.NIRGraph(nodes, edges, metadata={OURS: said})


def _dense(form: Form) -> list[tuple[str, nir.NIRNode]]:
    return [("weight", nir.Affine(form.weight, form.added) if form.added.any() else nir.Linear(form.weight))]


def read(
    graph: object, spike: str | None, dt: Number | None, inputs: str | None, affine_bias: str | None, **options: Any
) -> LIFNetwork:
    """`from_nir`; learn, dtype and device are options of the network."""
    whole = _read(graph)
    said = _metadata(whole)
    dialect = _dialect(said, spike, dt, inputs)
    if affine_bias not in (None, "steady"):
        raise ConfigurationError(f"affine_bias={affine_bias!r}", 'None or "steady"', 'affine_bias="steady"')
    if options["dtype"] is None:
        options["dtype"] = {"float32": torch.float32, "float64": torch.float64}.get(str(said.get("dtype")))
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is refused as not finite
            walk = Walk(whole, dialect.inputs == "currents")
            chain = walk.chain()
            layers, readout = _found(walk, chain, dialect, affine_bias is not None)
    except RecursionError as error:
        raise ConfigurationError("a NIR graph of too many nodes in a row", "some hundred", "multiplying them out") from error
    return _network(chain.sources, layers, readout, **options)


def _found(walk: Walk, chain: Chain, dialect: Dialect, steady: bool) -> tuple[list[Numbers], Readout | None]:
    """Numbers of the layers and of the readout, to the bit where they were kept."""
    layers = []
    for name, form in zip(chain.names, chain.forms, strict=True):
        driven = form.kind in ("LIF", "IF") and form.synapse is None
        if form.added.any() and not steady and not driven:
            raise ConfigurationError(
                f"a bias of an Affine node before the synapse of {name!r}, which brings a current that grows over tau_syn",
                "none, or one taken as it is in the long run",
                'affine_bias="steady"',
            )
        layers.append(exact(_kept(walk, name), as_numbers(form, dialect), form, lambda x: as_form(x, dialect)))
    readout = None
    if chain.readout is not None:
        found = readout_numbers(*chain.readout, dialect)
        kept = _kept(walk, chain.readout_name)
        readout = exact(kept, found, chain.readout, lambda x: readout_form(x, dialect))
    return layers, readout


def _network(sources: Shape, layers: Sequence[Numbers], readout: Readout | None, **options: Any) -> LIFNetwork:
    """A network of these numbers. Times and thresholds that cannot be are its own errors."""
    names = ("tau_mem", "tau_syn", "v_th", "v_reset", "bias", "delays", "rec_delays")
    values: dict[str, Any] = {name: tuple(getattr(x, name) for x in layers) for name in names}
    for name, unused in (("tau_mem", 20.0), ("tau_syn", 5.0)):
        values[name] = tuple(unused if x is None else x for x in values[name])
    values["delays"] = tuple(x.delays if x.shared is None or x.delays is None else x.shared.delays(x.delays) for x in layers)
    options |= values
    stack = [len(x.v_th) if x.part is None else x.part for x in layers]
    if len(sources) == 1:
        options |= {"n_in": sources[0], "layers": [len(x.v_th) for x in layers]}
    made = LIFNetwork if len(sources) == 1 else partial(LIFConv2d, sources, stack)
    net = made(
        recurrent=[x.w_rec is not None for x in layers],
        n_out=None if readout is None else len(readout.weight),
        tau_out=20.0 if readout is None else float(readout.tau),
        leak=tuple(x.tau_mem is not None for x in layers),
        generator=torch.Generator().manual_seed(0),  # the weights drawn here are replaced; torch's own is left as it is
        **options,
    )
    with torch.no_grad():
        for k, layer in enumerate(layers):
            for own, given in ((net.w_in[k], layer.w_in), (net.w_rec[k], layer.w_rec)):
                if given is not None:
                    own.copy_(torch.from_numpy(given))
        if readout is not None and net.w_out is not None:
            net.w_out.copy_(torch.from_numpy(readout.weight))
    for name, x in net.named_parameters():
        finite(name, x, "weights of a NIR graph that the dtype can hold", "dtype=torch.float64, or other units")
    return net


def _numbers(net: LIFNetwork, k: int, inputs: str) -> Numbers:
    """Layer k, or what NIR has no node for."""
    layer, structure = net.tensors()[k], net.structure[k]
    part = net.stack[k] if isinstance(net, LIFConv2d) else None
    part = part if isinstance(part, (Conv2d, Pool2d)) else None
    plain = Structure(structure.sources, leak=structure.leak)
    where = f"in layer {k}"
    for there, seen, remedy in (
        (structure.receptors is not None, "receptors", "one synapse a neuron"),
        (structure.reset != plain.reset, "a reset by a distance", 'reset="to"'),
        ((structure.synapses and part is None) or structure.rec_synapses, "a list of synapses", "a dense layer"),
        (part is not None and layer.w_rec is not None, "recurrent weights of maps", "recurrent dense layers"),
        (
            any(getattr(layer, name) is not None for name in (*COMPONENTS, *FOLLOWING)),
            "adaptation or a threshold that moves",
            "none",
        ),
        (bool(layer.refractory.any()), "a refractory time", "refractory=0.0"),
        (layer.delays is not None and layer.delays.dim() == 2, "delays per synapse", "delays per axon"),
        (layer.rec_delays is not None and layer.rec_delays.dim() == 2, "recurrent delays per synapse", "delays per axon"),
    ):
        if there:
            raise ConfigurationError(f"{seen} {where}", "what nodes of NIR can say", remedy)
    current = inputs == "currents" and k == 0
    n, m = net.layers[k], net.fan_in[k]
    rows = [(name, getattr(layer, name), (n,)) for name in ("bias", "tau_mem", "tau_syn", "v_th", "v_reset")]
    rows += [("delays", _per_axon(layer.delays, structure.synapses, m, where), (m,)), ("rec_delays", layer.rec_delays, (n,))]
    of: dict[str, Any] = {
        name: None if x is None else np.broadcast_to(_array(f"{name}[{k}]", x), shape).copy() for name, x, shape in rows
    }
    if not structure.leak and not current and bool(of["bias"].any()):
        raise ConfigurationError(f"a bias without leak {where}", "what nodes of NIR can say", "leak, or currents as inputs")
    if current and (layer.w_rec is not None or layer.delays is not None):
        raise ConfigurationError(f"recurrent weights or delays {where} driven by currents", "neither there", 'inputs="spikes"')
    of["tau_mem"], of["tau_syn"] = of["tau_mem"] if structure.leak else None, None if current else of["tau_syn"]
    w_in, w_rec = _array(f"w_in[{k}]", layer.w_in), None if layer.w_rec is None else _array(f"w_rec[{k}]", layer.w_rec)
    quiet = bool((of["v_th"].astype(np.float32) == np.float32(SILENT)).all()) and not of["v_reset"].any()
    silent = quiet and k == len(net.layers) - 1 and structure.leak and not current and net.n_out is None
    shape: Shape = (n,)
    below: Shape = ()
    if isinstance(net, LIFConv2d):
        shape, below = net.shapes[k], net.shapes[k - 1] if k else net.shape
    return Numbers(w_in, w_rec, **of, silent=silent, shape=shape, part=part, below=below if part is not None else ())


def _per_axon(delays: Tensor | None, synapses: Synapses | None, m: int, where: str) -> Tensor | None:
    """Delays of a list of synapses as those of the m neurons below, where there is one for each."""
    if delays is None or delays.dim() == 0 or synapses is None:
        return delays
    each = delays.new_zeros(m)
    each[synapses.pre] = delays
    if not torch.equal(each[synapses.pre], delays):
        raise ConfigurationError(f"delays per synapse {where}", "what nodes of NIR can say", "delays per axon")
    return each


def _array(name: str, x: Tensor) -> np.ndarray:
    """A parameter in float64 on the host."""
    array = x.detach().cpu().double().numpy().copy()
    if not np.isfinite(array).all():
        raise ConfigurationError(
            f"{name} with entries that are not finite", "finite numbers", "a network that has not diverged"
        )
    return array


def _read(graph: object) -> nir.NIRGraph:
    """A graph that is given, or that a file holds."""
    if isinstance(graph, (str, PathLike)):
        path = fspath(graph)
        try:
            graph = nir.read(path, type_check=False)
        except UNREADABLE as error:
            why = f"{type(error).__name__}: {error}"
            raise ConfigurationError(
                f"no NIR graph in {path!r} ({why})", "a file written by nir.write", "writing it again"
            ) from error
    kind("graph", graph, nir.NIRGraph)
    assert isinstance(graph, nir.NIRGraph)
    return graph


def _metadata(graph: nir.NIRGraph) -> Mapping[str, Any]:
    """What `to_nir` wrote of the whole, or nothing."""
    said = graph.metadata.get(OURS, {}) if isinstance(graph.metadata, dict) else {}
    plain = {k: v.decode() if isinstance(v, bytes) else v for k, v in said.items()} if isinstance(said, dict) else {}
    return {k: v for k, v in plain.items() if isinstance(v, (str, float, np.floating))}


def _dialect(said: Mapping[str, Any], spike: object, dt: Number | None, inputs: object) -> Dialect:
    """What is said by arguments or by metadata. Where they differ one of them is wrong, and nobody else can tell which."""
    step = None if dt is None else positive("dt", dt, "a positive step in ms", "dt=0.1")
    given = {"spike": spike, "dt_ms": step, "inputs": inputs}
    for name, value in given.items():
        if value is not None and name in said and said[name] != value:
            raise ConfigurationError(
                f"{name}={value!r} for a graph whose metadata say {said[name]!r}",
                "the same",
                f'leaving it out, or del graph.metadata["{OURS}"]',
            )
    whole = {name: said.get(name) if value is None else value for name, value in given.items()}
    if whole["spike"] is None:
        raise ConfigurationError(
            "a NIR graph that does not say what a spike is, without spike=",
            '"impulse" of area 1 s, "sample" of height 1 for a step dt in ms, or "jump" of I by w_in',
            'spike="sample", dt=0.1 for a graph of norse, snnTorch, SpikingJelly or Rockpool at that step',
        )
    step = None if whole["dt_ms"] is None else positive("dt", whole["dt_ms"])
    target = said.get("target")
    return dialect_of(whole["spike"], step, whole["inputs"] or "spikes", target if target in TARGETS else "equation")


def _kept(walk: Walk, name: str) -> Mapping[str, Any]:
    metadata = walk.nodes[name].metadata
    kept = metadata.get(OURS, {}) if isinstance(metadata, dict) else {}
    return kept if isinstance(kept, dict) else {}
