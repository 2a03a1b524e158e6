"""A NIR graph as layers: subgraphs opened, linear nodes multiplied out, order found from the edges alone."""

from typing import Any, NamedTuple

import nir
import numpy as np

from adjsnn.interop.nir_maps import MAPS, Shape, Shared, behind, of_node, refuse
from adjsnn.interop.nir_numbers import Form
from adjsnn.lif.conv import Pool2d

LINEAR = (nir.Linear, nir.Affine, nir.Scale, nir.Delay)
FIRING = (nir.CubaLIF, nir.LIF, nir.IF)
FIELDS = {
    nir.CubaLIF: ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in"),
    nir.CubaLI: ("tau_syn", "tau_mem", "r", "v_leak", "w_in"),
    nir.LIF: ("tau", "r", "v_leak", "v_threshold", "v_reset"),
    nir.IF: ("r", "v_threshold", "v_reset"),
    nir.LI: ("tau", "r", "v_leak"),
}
KNOWN = (*LINEAR, *MAPS, nir.Flatten, *FIELDS, nir.Input, nir.Output)


class Term(NamedTuple):
    """What one source brings to a node: weight (N, M), shared, or None for the identity; delay (M,) or (N, M), s, or None."""

    weight: np.ndarray | Shared | None
    delay: np.ndarray | None


class Sum(NamedTuple):
    """What a node receives or gives: of each source a term, and a constant (N,), None for zero; (N,) or (C, H, W)."""

    terms: dict[str, Term]
    constant: np.ndarray | None
    shape: Shape

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


class Chain(NamedTuple):
    """A graph as layers.

    Attributes:
        sources: shape of the inputs, (M,) or (C, H, W).
        forms: of each layer.
        names: of their nodes.
        readout: weight (C, N), τ and r (C,) of an LI node behind the last, or None.
        readout_name: of that node.
    """

    sources: Shape
    forms: list[Form]
    names: list[str]
    readout: tuple[np.ndarray, np.ndarray, np.ndarray] | None
    readout_name: str


def opened(graph: nir.NIRGraph, prefix: str = "") -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Nodes and edges without subgraphs, whose Input and Output nodes only hand on what they receive."""
    if not isinstance(graph.nodes, dict) or not isinstance(graph.edges, (list, tuple)):
        raise refuse(f"nodes of {type(graph.nodes).__name__}, edges of {type(graph.edges).__name__}", "a dict, a list", "both")
    ends: dict[str, tuple[str, str]] = {}
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    for name, node in graph.nodes.items():
        if not isinstance(node, nir.NIRGraph):
            nodes[prefix + name] = node
            ends[name] = (prefix + name, prefix + name)
            continue
        inner, own = f"{prefix}{name}.", node.nodes if isinstance(node.nodes, dict) else {}
        for kind in (nir.Input, nir.Output):
            if sum(isinstance(x, kind) for x in own.values()) != 1:
                raise refuse(f"a subgraph {prefix + name!r} of several or no {kind.__name__} nodes", "one", "one of each")
        first, last = (next(inner + k for k, x in own.items() if isinstance(x, kind)) for kind in (nir.Input, nir.Output))
        ends[name] = first, last
        parts, between = opened(node, inner)
        if both := sorted(parts.keys() & {*nodes, *(prefix + x for x in graph.nodes)}):
            raise refuse(f"nodes {both} both in a subgraph and beside it", "names of their own", "another name")
        nodes |= parts
        edges += between
    for edge in graph.edges:
        if not isinstance(edge, (tuple, list)) or len(edge) != 2 or not all(isinstance(x, str) and x in ends for x in edge):
            raise refuse(f"an edge {edge!r}", f"two names among {sorted(ends)}", "an edge between nodes that are there")
        edges.append((ends[edge[0]][1], ends[edge[1]][0]))
    for name, node in [*nodes.items()] if not prefix else []:
        if isinstance(node, (nir.Input, nir.Output)) and name not in graph.nodes:
            into, out = [a for a, b in edges if b == name], [b for a, b in edges if a == name]
            if not into or not out:
                raise refuse(f"no edge {'out of' if into else 'into'} {name!r} of a subgraph", "both", "the missing edge")
            edges = [x for x in edges if name not in x] + [(a, b) for a in into for b in out]
            del nodes[name]
    if len({*edges}) < len(edges):
        raise refuse("the same edge twice", "each once", "a weight twice as large")
    return nodes, edges


class Walk:
    """The way back from each node to what feeds it."""

    def __init__(self, graph: nir.NIRGraph, currents: bool) -> None:
        self.currents = currents
        self.nodes, edges = opened(graph)
        for name, node in self.nodes.items():
            if not isinstance(node, KNOWN):
                raise refuse(
                    f"the node {name!r} of type {type(node).__name__}",
                    f"{', '.join(x.__name__ for x in KNOWN)}, and graphs of these",
                    "its weights multiplied out into a Linear, or another network",
                )
        self.before: dict[str, list[str]] = {name: [] for name in self.nodes}
        for a, b in edges:
            self.before[b].append(a)
        self.input, self.output = (self._end(graph, kind) for kind in (nir.Input, nir.Output))
        if self.before[self.input]:
            raise refuse(f"an edge into its Input {self.input!r}", "none", "a network that starts there")
        self.done: dict[str, Sum] = {}
        self.open: set[str] = set()
        self.used = {self.input, self.output}

    def _end(self, graph: nir.NIRGraph, kind: type) -> str:
        found = [name for name, node in graph.nodes.items() if isinstance(node, kind)]
        if len(found) != 1:
            raise refuse(f"{len(found)} {kind.__name__} nodes", "one", "one network a graph; missing edges also show like this")
        return found[0]

    def chain(self) -> Chain:
        """Layers from the input to the output."""
        firing = [name for name, node in self.nodes.items() if isinstance(node, (*FIRING, nir.CubaLI))]
        fed = {name: self.received(name) for name in firing}
        forms, names, here = [], [], self.input
        sources = self._shape_of(self.input)
        while firing:
            following = [x for x in firing if {*fed[x][0].terms} - {x} == {here}]
            if len(following) != 1:
                seen = f"{sorted(following)} fed by {here!r} alone, and {sorted(firing)} left"
                raise refuse(seen, "layers in a row, each fed by the one before and by itself", "a network without other ways")
            (here,) = following
            firing.remove(here)
            forms.append(self.form(here, *fed[here]))
            names.append(here)
            self.used.add(here)
        if not forms:
            raise refuse("no neurons", "at least one CubaLIF, LIF or IF", "a spiking network")
        for name in names[:-1]:
            if isinstance(self.nodes[name], nir.CubaLI):
                raise refuse(f"the node {name!r}, a CubaLI before other neurons", "it behind all others", "a CubaLIF")
        readout, readout_name = self._readout(here)
        if idle := sorted({*self.nodes} - self.used):
            raise refuse(
                f"nodes {idle}, which lead to no neuron and no output", "nodes in use", "edges from them, or none of them"
            )
        return Chain(sources, forms, names, readout, readout_name)

    def received(self, name: str) -> tuple[Sum, str | None]:
        """What a node of neurons receives, and the name of an LI node between, its synapse."""
        node, before = self.nodes[name], self.before[name]
        synapses = [x for x in before if isinstance(self.nodes[x], nir.LI)]
        if isinstance(node, (nir.LIF, nir.IF)) and synapses:
            if len(before) > 1:
                raise refuse(f"{name!r} fed by {before}", "one LI node, its synapse", "receptors=, built by hand")
            self.used.add(before[0])
            return self.incoming(before[0]), before[0]
        return self.incoming(name), None

    def form(self, name: str, total: Sum, synapse: str | None) -> Form:
        """Parameters and weights of a node of neurons."""
        node, shape, n = self.nodes[name], total.shape, total.size
        kind = type(node).__name__
        first = self.input in total.terms
        if isinstance(node, (nir.LIF, nir.IF)) and synapse is None and not (first and self.currents and len(total.terms) == 1):
            raise refuse(
                f"the {kind} node {name!r}, which spikes reach without a synapse: each is a jump of v",
                "synapses with a time constant: a CubaLIF, or an LI node before it"
                + ("" if not first else ", or currents as its input"),
                'inputs="currents"' if first else "a CubaLIF with a short tau_syn",
            )
        if self.currents and first and (synapse is not None or not isinstance(node, (nir.LIF, nir.IF))):
            raise refuse(f"currents into the synapse of {name!r}", "spikes there, or a LIF or IF node", 'inputs="spikes"')
        parameters = self._parameters(name, shape)
        before = None if synapse is None else self._parameters(synapse, shape)
        if before is not None and bool(before["v_leak"].any()):
            raise refuse(f"v_leak of {synapse!r}, a synapse", "zero", "v_leak of the neuron behind it")
        feeding = {source: term for source, term in total.terms.items() if source != name}
        ((_, into),) = feeding.items()
        own = total.terms.get(name)
        weight, where = np.eye(n) if into.weight is None else into.weight, (shape, None, ())
        if into.weight is None and len(shape) == 3:
            weight = Shared(Pool2d(1), (shape[0], shape[1], shape[2]), np.ones(shape[0]))  # neuron to neuron
        if isinstance(weight, Shared):
            weight, where = weight.values, (shape, weight.part, weight.below)
        recurrent = None if own is None else np.eye(n) if own.weight is None else own.weight
        if isinstance(recurrent, Shared) or (own is not None and len(shape) == 3):
            raise refuse(f"recurrent weights of the maps {name!r}", "none, or a dense layer of them", "a Flatten node")
        added = np.zeros(n) if total.constant is None else total.constant
        if self.currents and first and into.delay is not None:
            raise refuse(f"a Delay of the currents into {name!r}", "none", "currents that come later")
        rec_delay = None if own is None else own.delay
        return Form(kind, parameters, before, weight, recurrent, added, into.delay, rec_delay, *where)

    def incoming(self, name: str) -> Sum:
        """The sum of what the edges into a node bring."""
        if not self.before[name]:
            raise refuse(f"no edge into {name!r}", "what feeds it", "the missing edge")
        parts = [self.given(x) for x in self.before[name]]
        if len(shapes := {x.shape for x in parts}) > 1:
            raise refuse(f"{sorted(shapes)} values a time into {name!r}", "as many on each edge", "weights of one shape")
        terms: dict[str, Term] = {}
        for part in parts:
            for source, term in part.terms.items():
                terms[source] = self._added(terms[source], term, part.size, name) if source in terms else term
        constants = [x.constant for x in parts if x.constant is not None]
        return Sum(terms, sum(constants[1:], constants[0]) if constants else None, parts[0].shape)

    def given(self, name: str) -> Sum:
        """What a node gives, in terms of spikes of neurons and of the input."""
        if name in self.done:
            return self.done[name]
        node = self.nodes[name]
        if name == self.input or isinstance(node, FIRING):
            return Sum({name: Term(None, None)}, None, self._shape_of(name))
        if isinstance(node, (nir.LI, nir.CubaLI)):
            raise refuse(
                f"the {type(node).__name__} node {name!r} before others",
                "one neuron behind an LI node, or the output",
                "a CubaLIF",
            )
        if name == self.output:
            raise refuse(f"an edge out of its Output {name!r}", "none", "a network that ends there")
        if name in self.open:
            raise refuse(f"a cycle through {name!r} without a neuron on it", "neurons in every cycle", "cutting it")
        self.open.add(name)
        below = self.incoming(name)
        self.open.discard(name)
        self.used.add(name)
        self.done[name] = self._through(name, node, below)
        return self.done[name]

    def _through(self, name: str, node: Any, below: Sum) -> Sum:
        """A linear node applied to what it receives."""
        if isinstance(node, nir.Flatten):
            return below._replace(shape=_flat(name, node, below.shape))
        if isinstance(node, MAPS):
            return self._over_maps(name, node, below)
        if isinstance(node, (nir.Delay, nir.Scale)):
            field = "delay" if isinstance(node, nir.Delay) else "scale"
            row = self.array(name, field)
            row = np.broadcast_to(row, below.shape) if row.shape in ((), (1,)) else row
            self._expect(name, field, row, below.shape)
            row = row.reshape(-1)
            if field == "delay" and bool((row < 0.0).any()):
                raise refuse(f"delays of {name!r} from {row.min():g} s", "times ≥ 0", "spikes that come later")
            terms = {k: _delayed(x, row) if field == "delay" else _scaled(row, x, name) for k, x in below.terms.items()}
            constant = None if below.constant is None else below.constant if field == "delay" else row * below.constant
            return Sum(terms, constant, below.shape)
        weight = self.array(name, "weight")
        if weight.ndim != 2 or weight.shape[1:] != below.shape:
            remedy = "weights of another shape" if len(below.shape) == 1 else "a Flatten node from start_dim=0 before it"
            seen = f"weight {weight.shape} of {name!r} on {'×'.join(map(str, below.shape))} values"
            raise refuse(seen, f"(N, {below.size})", remedy)
        constant = None if below.constant is None else weight @ below.constant
        if isinstance(node, nir.Affine):
            bias = self.array(name, "bias")
            self._expect(name, "bias", bias, weight.shape[:1])
            constant = bias if constant is None else constant + bias
        return Sum({k: _times(weight, x, name) for k, x in below.terms.items()}, constant, weight.shape[:1])

    def _over_maps(self, name: str, node: Any, below: Sum) -> Sum:
        """A Conv or pooling node applied to what it receives."""
        shared, bias = of_node(name, node, below.shape, self.array)
        terms = {}
        for source, term in below.terms.items():
            if isinstance(term.weight, np.ndarray):
                raise refuse(f"{name!r} behind weights of maps that are not shared", "neurons between them", "a CubaLIF")
            terms[source] = Term(shared if term.weight is None else behind(name, term.weight, shared), term.delay)
        constant = None if below.constant is None else shared.before(np.eye(int(np.prod(shared.shape)))) @ below.constant
        if bias is not None:
            constant = bias if constant is None else constant + bias
        return Sum(terms, constant, shared.shape)

    def _added(self, a: Term, b: Term, n: int, name: str) -> Term:
        """Two ways from one source."""
        both = [np.eye(n) if x.weight is None else x.weight for x in (a, b)]
        if any(isinstance(x, Shared) for x in both):
            raise refuse(f"two ways through maps into {name!r}", "one", "one Conv2d")
        if not (a.delay is b.delay or (a.delay is not None and b.delay is not None and np.array_equal(a.delay, b.delay))):
            raise refuse(f"two ways with unlike delays into {name!r}", "one delay for each pair", "one way")
        return Term(sum(both), a.delay)  # type: ignore[arg-type]

    def _readout(self, last: str) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray] | None, str]:
        """What stands between the last neurons and the output."""
        before = self.before[self.output]
        if before == [last]:
            return None, ""
        if len(before) != 1 or not isinstance(self.nodes[before[0]], nir.LI):
            seen = f"{before} before its output, behind {last!r}"
            raise refuse(seen, "the last neurons, or weights and one LI node behind them", "a readout by an LI node")
        (name,) = before
        total = self.incoming(name)
        if {*total.terms} != {last} or total.terms[last].delay is not None or total.constant is not None:
            raise refuse(
                f"a readout {name!r} of {sorted(total.terms)}", f"spikes of {last!r}, without delay or bias", "a Linear node"
            )
        values = self._parameters(name, total.shape)
        if bool(values["v_leak"].any()) or len(np.unique(values["tau"])) > 1:
            raise refuse(f"v_leak or several tau in the readout {name!r}", "v_leak of zero and one tau", "one tau")
        self.used.add(name)
        weight = total.terms[last].weight
        weight = weight.before(np.eye(total.size)) if isinstance(weight, Shared) else weight
        return (np.eye(total.size) if weight is None else weight, values["tau"], values["r"]), name

    def array(self, name: str, field: str) -> np.ndarray:
        """A parameter of a node in float64."""
        value = np.asarray(getattr(self.nodes[name], field, None))
        if value.dtype.kind not in "fiu" or not bool(np.isfinite(value).all()):
            raise refuse(
                f"{field} of {name!r} of {value.dtype}, not finite numbers throughout", "finite numbers", "other values"
            )
        return value.astype(np.float64)

    def _parameters(self, name: str, shape: Shape) -> dict[str, np.ndarray]:
        """Of a node of neurons of a shape, (n,) each; what must be positive is."""
        node = self.nodes[name]
        values = {}
        for field in next(fields for kind, fields in FIELDS.items() if isinstance(node, kind)):
            x = self.array(name, field)
            values[field] = np.broadcast_to(x, shape).copy() if x.shape in ((), (1,)) else x
            self._expect(name, field, values[field], shape)
            values[field] = values[field].reshape(-1)
            if field.startswith("tau") and not bool((x > 0.0).all()):
                raise refuse(f"{field} of {name!r} from {x.min():g} s", "positive times", "another time constant")
        return values

    def _shape_of(self, name: str) -> Shape:
        """(N,) of a row, (C, H, W) of maps."""
        node = self.nodes[name]
        if isinstance(node, nir.Input):
            shape = np.atleast_1d(np.asarray(node.input_type.get("input") if isinstance(node.input_type, dict) else None))
            if shape.shape not in ((1,), (3,)) or shape.dtype.kind not in "iu" or bool((shape < 1).any()):
                raise refuse(f"the shape {shape.tolist()} of its Input", "(M,), one row, or maps (C, H, W)", "one of these")
            return tuple(int(n) for n in shape)
        shapes = {self.array(name, field).shape for field in FIELDS[type(node)]} - {(), (1,)}
        if shapes:
            return max(shapes, key=np.prod)  # unlike ones are refused where they are read
        before = [self.nodes[x] for x in self.before[name]]
        if any(isinstance(x, MAPS) for x in before):
            return self.incoming(name).shape
        weights = [x.weight for x in before if isinstance(x, (nir.Linear, nir.Affine))]
        return (len(weights[0]),) if weights else (1,)

    def _expect(self, name: str, field: str, x: np.ndarray, shape: tuple[int, ...]) -> None:
        if x.shape != shape:
            raise refuse(f"{field} {x.shape} of {name!r}", f"{shape}", "shapes that agree along the edges")


def _flat(name: str, node: Any, shape: Shape) -> Shape:
    """What a Flatten node makes of a shape."""
    start, end = (int(x) % len(shape) for x in (node.start_dim, node.end_dim))
    if start > end:
        raise refuse(f"dimensions {node.start_dim} to {node.end_dim} of {name!r} on {shape}", "a range of them", "0 and -1")
    return (*shape[:start], int(np.prod(shape[start : end + 1])), *shape[end + 1 :])


def _scaled(row: np.ndarray, term: Term, name: str) -> Term:
    if isinstance(term.weight, Shared):
        return term._replace(weight=term.weight.scaled(row))
    return _times(np.diag(row), term, name)


def _times(weight: np.ndarray, term: Term, name: str) -> Term:
    if term.weight is None:
        return Term(weight, term.delay)
    if isinstance(term.weight, Shared):
        return Term(term.weight.before(weight), term.delay)
    delay = term.delay
    if delay is not None and delay.ndim == 2:
        if bool((delay != delay[:1]).any()):
            raise refuse(f"unlike delays between linear nodes, before {name!r}", "delays before or behind them", "one Linear")
        delay = delay[0]
    return Term(weight @ term.weight, delay)


def _delayed(term: Term, row: np.ndarray) -> Term:
    if term.weight is None:
        return Term(None, row if term.delay is None else term.delay + row)
    if isinstance(term.weight, Shared):
        raise refuse("a Delay behind a Conv or pooling node", "it before", "delays of the maps below")
    before = np.zeros(term.weight.shape[1]) if term.delay is None else term.delay
    return Term(term.weight, np.atleast_2d(before) + row[:, None])
