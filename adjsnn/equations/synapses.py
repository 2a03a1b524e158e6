"""Synapses between the units of a system of equations: what an event of a unit adds, after a delay, to a state of others."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from adjsnn.equations.model import Event
from adjsnn.equations.nodes import Layout
from adjsnn.errors import ConfigurationError
from adjsnn.lif.given import Given, equal_rows, put_here
from adjsnn.lif.synapses import Synapses

EXAMPLE = 'synapses={"g": {"weight": "W", "delay": "d"}}'
KEYS = {"weight", "delay", "source", "edges"}


class Synapse(NamedTuple):
    """One kind of synapse.

    Fields: state to which is added; first of the guards of the events that are sent, and how many they are; names of the
    weights, (N_target, N_source) or (W,), and of the delays; what has a delay of its own, "all", "source" or "synapse"; which
    unit projects to which, or None: each to each.
    """

    state: str
    first: int
    sources: int
    weight: str
    delay: str
    each: str
    edges: Synapses | None = None


def entries_of(given: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """The state, what an error calls it, and each kind of synapse on it, of which there may be several in a list."""
    for state, entries in given.items():
        if not isinstance(entries, list | tuple):
            yield state, f"synapses[{state!r}]", entries
        elif not entries:
            raise ConfigurationError(f"synapses[{state!r}] without an entry", "at least one", "leaving the state out")
        else:
            yield from ((state, f"synapses[{state!r}][{k}]", entry) for k, entry in enumerate(entries))


def parameters_of(given: Mapping[str, Any]) -> set[str]:
    """Names of weights and delays: shared by all samples, and matrices if they have two dimensions."""
    entries = [entry for _, _, entry in entries_of(given) if isinstance(entry, Mapping)]
    return {name for entry in entries for key in ("weight", "delay") if isinstance(name := entry.get(key), str)}


def read_synapses(
    given: Mapping[str, Any],
    states: Mapping[str, int],
    events: Sequence[Event],
    shapes: Mapping[str, tuple[int, int]],
    own: Mapping[str, int],
) -> tuple[Synapse, ...]:
    """Synapses as a caller gave them, by the state to which they add.

    Raises:
        ConfigurationError: names, sizes or lists of synapses that cannot be right.
    """
    found = []
    for state, where, entry in entries_of(given):
        if state not in states:
            raise ConfigurationError(f"synapses of {state!r}", f"names of states: {', '.join(states)}", EXAMPLE)
        if not isinstance(entry, Mapping) or not {"weight", "delay"} <= entry.keys() <= KEYS:
            raise ConfigurationError(
                f"{where}={entry!r}", "weight, delay and, of several events, source; edges where they are few", EXAMPLE
            )
        first, event = _source(where, entry, events)
        weight, delay = entry["weight"], entry["delay"]
        for name in (weight, delay):
            if not isinstance(name, str) or name not in shapes or name in own:
                raise ConfigurationError(f"{name!r} of {where}", f"a parameter: {', '.join(shapes)}", EXAMPLE)
        edges = _edges(where, entry, event.size, states[state])
        wanted = (states[state], event.size) if edges is None else (edges.weights, 0)
        if shapes[weight] != wanted:
            what = "targets, sources" if edges is None else "of the list of synapses"
            raise ConfigurationError(f"{weight} of {_shown(shapes[weight])}", f"{_shown(wanted)}: {what}", EXAMPLE)
        found.append(Synapse(state, first, event.size, weight, delay, _each(delay, shapes[delay], wanted, event, edges), edges))
    return tuple(found)


def _shown(shape: tuple[int, int]) -> tuple[int, ...]:
    return shape if shape[1] else shape[:1]


def _source(where: str, entry: Mapping[str, Any], events: Sequence[Event]) -> tuple[int, Event]:
    """The event that is sent, and its first guard."""
    names = [event.name for event in events]
    name = entry.get("source", names[0] if len(names) == 1 else None)
    if name not in names:
        seen = f"source={name!r} of {where}"
        raise ConfigurationError(seen, f"an event: {', '.join(names) or 'there is none'}", 'source="spike"')
    place = names.index(name)
    return sum(event.size for event in events[:place]), events[place]


def _edges(where: str, entry: Mapping[str, Any], sources: int, targets: int) -> Synapses | None:
    """The list of synapses, checked."""
    edges = entry.get("edges")
    if edges is None:
        return None
    if not isinstance(edges, Synapses) or not len(edges):
        seen = "no synapse" if isinstance(edges, Synapses) else f"type {type(edges).__name__}"
        raise ConfigurationError(f"edges of {where} of {seen}", "adjsnn.Synapses", '"edges": adjsnn.Synapses(pre, post)')
    edges.check(f"edges of {where}", sources, targets, 1)
    return edges


def _each(name: str, shape: tuple[int, int], weights: tuple[int, int], event: Event, edges: Synapses | None) -> str:
    """What has a delay of its own."""
    synapses = weights if edges is None else (len(edges), 0)
    if shape == (1, 0):
        return "all"
    if shape not in ((event.size, 0), synapses):
        expected = f"(), ({event.size},) or {_shown(synapses)}"
        raise ConfigurationError(f"{name} of {_shown(shape)}", expected, "one delay for all")
    if edges is None or shape != (event.size, 0) or shape != synapses:
        return "synapse" if shape == synapses else "source"
    if edges.pre.tolist() == list(range(len(edges))):  # of either it is the same
        return "synapse"
    raise ConfigurationError(
        f"{name} of {_shown(shape)}, with as many sources as synapses", "one meaning", "two lists of synapses on the state"
    )


def keep_wiring(system: Any) -> None:
    """Let the state_dict of a system hold its lists of synapses, `wiring.<kind>`, and hold them against those that are loaded.

    `Synapses(*state["wiring.0"])` is the list again, a persistent buffer. A state that has none is loaded as it is.
    """
    lists = {str(k): synapse.edges for k, synapse in enumerate(system.synapses) if synapse.edges is not None}
    if lists:
        device = next((x.device for x in (*system.parameters(), *system.buffers())), torch.device("cpu"))
        system.wiring = Given(lists, device)
    system.register_load_state_dict_pre_hook(_compare)


def check_put_here(system: Any) -> None:
    """Refuse other lists of synapses, where `torch.func.functional_call` has put them.

    Raises:
        ConfigurationError: as on loading them.
    """
    _compare(system, put_here(system), "")


def _compare(system: Any, state: dict[str, Any], prefix: str, *_others: Any) -> None:
    """Hold the lists of a state against the system's.

    Raises:
        ConfigurationError: lists that are not the system's.
    """
    own = {f"{prefix}wiring.{k}": x.edges for k, x in enumerate(system.synapses)}
    for key in [key for key in state if key.startswith(f"{prefix}wiring.")]:
        edges = own.get(key)
        if edges is None or not equal_rows(state[key], edges):
            seen = f'a state with "{key}" for equations with {"other" if edges else "no such"} synapses'
            remedy = f'"edges": adjsnn.Synapses(*state["{key}"])'
            raise ConfigurationError(seen, "the list that its weights were saved with", remedy)


class Places(NamedTuple):
    """Where the columns of a list of synapses stand in the wiring, in the order of their sources: where those of each source
    begin, and all end; targets; numbers of weights; numbers in the list."""

    begins: int
    targets: int
    weights: int
    numbers: int


def wiring_of(synapses: Sequence[Synapse]) -> tuple[np.ndarray, list[Places | None]]:
    """Lists of synapses in one array of integers, and where each stands in it; None for those of each to each."""
    parts, places, first = [], [], 0
    for synapse in synapses:
        edges = synapse.edges
        if edges is None:
            places.append(None)
            continue
        pre, post, _ = edges.in_order
        order = edges.by_pre
        begins = np.searchsorted(pre.numpy(), np.arange(synapse.sources + 1))
        columns = begins, post.numpy(), (order if edges.shared is None else edges.shared[order]).numpy(), order.numpy()
        places.append(Places(*(first + int(n) for n in np.cumsum([0, *map(len, columns[:3])]))))
        parts += columns
        first += sum(map(len, columns))
    return np.concatenate([*parts, np.zeros(0, dtype=np.int64)]).astype(np.int64), places


def synapse_source(synapses: Sequence[Synapse], layout: Layout) -> str:
    """Source of what `adjsnn.equations.cpu.names` says of synapses."""
    wiring, places = wiring_of(synapses)
    cases: list[list[str]] = [[], [], [], []]
    most = 0
    for s, (synapse, at) in enumerate(zip(synapses, places, strict=True)):
        sends = f"    if s == {s} and {synapse.first} <= g < {synapse.first + synapse.sources}:"
        (count, packets), *rest = _one(synapse, layout, at, wiring)
        cases[0].append(f"{sends}\n        j = g - {synapse.first}\n        return {count}")
        most += packets
        for case, line in zip(cases[1:], rest, strict=True):
            case.append(f"    if s == {s}:\n        {line}")
    firsts = tuple(x.first for x in synapses) or (0,)
    parts = [
        f"KINDS = {len(synapses)}\nFIRSTS = {firsts!r}\nMOST = {most}",
        _function("packets_of(s, g, wiring)", cases[0], "return 0"),
        _function("delay_place(s, j, i, wiring)", cases[1], "return 0"),
        _function("deliver(s, j, i, wiring, p, y)", cases[2], "return"),
        _function("pull_delivery(s, j, i, wiring, bar, pb)", cases[3], "return"),
    ]
    return "\n\n".join(parts) + "\n"


def _one(synapse: Synapse, layout: Layout, at: Places | None, wiring: np.ndarray) -> tuple[Any, str, str, str]:
    """Of one kind: packets of unit j, and most of any; where the delay stands; what a packet adds, and the way back."""
    target, each = layout.slots[synapse.state].first, synapse.each == "synapse"
    if at is None:
        weight, rows, _ = layout.matrices[synapse.weight]
        begin, end = "0", f"{rows}"
        count, most = (f"{rows}", rows) if each else ("1", 1)
        to, own, number = f"{target} + e", f"{weight} + j * {rows} + e", f"j * {rows} + i"
    else:
        begin, end = f"wiring[{at.begins} + j]", f"wiring[{at.begins + 1} + j]"
        most = int(np.diff(wiring[at.begins : at.targets]).max()) if each else 1
        count = f"{end} - {begin}" if each else f"min({end} - {begin}, 1)"  # a unit without a target sends nothing
        to = f"{target} + wiring[{at.targets} + e]"
        own = f"{layout.slots[synapse.weight].first} + wiring[{at.weights} + e]"
        number = f"wiring[{at.numbers} + {begin} + i]"
    delay = layout.matrices[synapse.delay][0] if synapse.delay in layout.matrices else layout.slots[synapse.delay].first
    place = {"all": f"{delay}", "source": f"{delay} + j", "synapse": f"{delay} + {number}"}[synapse.each]
    over = f"for e in range({begin} + i, {begin} + i + 1):" if each else f"for e in range({begin}, {end}):"
    deliver = f"{over}\n            y[{to}] += p[{own}]"
    return (count, most), f"return {place}", deliver, f"{over}\n            pb[{own}] += bar[{to}]"


def _function(head: str, cases: Sequence[str], end: str) -> str:
    return "\n".join([f"def {head}:", *cases, f"    {end}"])
