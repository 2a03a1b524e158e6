"""Synapses between the units of a system of equations: what an event of a unit adds, after a delay, to a state of others."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from adjsnn.equations.model import Event
from adjsnn.equations.nodes import Layout
from adjsnn.errors import ConfigurationError

EXAMPLE = 'synapses={"g": {"weight": "W", "delay": "d"}}'


class Synapse(NamedTuple):
    """One kind of synapse.

    Fields: state to which is added; first of the guards of the events that are sent, and how many they are; names of the
    weights, (N_target, N_source), and of the delays, and how many numbers these are: 1, (N_source,) or those of the weights.
    """

    state: str
    first: int
    sources: int
    weight: str
    delay: str
    delays: tuple[int, int]


def matrices_of(given: Mapping[str, Any]) -> set[str]:
    """Names of parameters that are matrices if they have two dimensions."""
    return {name for entry in given.values() if isinstance(entry, Mapping) for name in entry.values() if isinstance(name, str)}


def read_synapses(
    given: Mapping[str, Any],
    states: Mapping[str, int],
    events: Sequence[Event],
    shapes: Mapping[str, tuple[int, int]],
    own: Mapping[str, int],
) -> tuple[Synapse, ...]:
    """Synapses as a caller gave them, by the state to which they add.

    Raises:
        ConfigurationError: names or sizes that cannot be right.
    """
    found = []
    for state, entry in given.items():
        if state not in states:
            raise ConfigurationError(f"synapses of {state!r}", f"names of states: {', '.join(states)}", EXAMPLE)
        if not isinstance(entry, Mapping) or not {"weight", "delay"} <= entry.keys() <= {"weight", "delay", "source"}:
            raise ConfigurationError(f"synapses[{state!r}]={entry!r}", "weight, delay and, of several events, source", EXAMPLE)
        first, event = _source(state, entry, events)
        weight, delay = entry["weight"], entry["delay"]
        for name in (weight, delay):
            if name not in shapes or name in own:
                raise ConfigurationError(f"{name!r} of synapses[{state!r}]", f"a parameter: {', '.join(shapes)}", EXAMPLE)
        wanted = states[state], event.size
        if shapes[weight] != wanted:
            raise ConfigurationError(f"{weight} of {shapes[weight]}", f"{wanted}: targets, sources", EXAMPLE)
        rows, columns = shapes[delay]
        if (rows, columns) not in ((1, 0), (event.size, 0), wanted):
            raise ConfigurationError(f"{delay} of {(rows, columns)}", f"(), ({event.size},) or {wanted}", "one delay for all")
        found.append(Synapse(state, first, event.size, weight, delay, (rows, columns)))
    return tuple(found)


def _source(state: str, entry: Mapping[str, Any], events: Sequence[Event]) -> tuple[int, Event]:
    """The event that is sent, and its first guard."""
    names = [event.name for event in events]
    name = entry.get("source", names[0] if len(names) == 1 else None)
    if name not in names:
        seen = f"source={name!r} of synapses[{state!r}]"
        raise ConfigurationError(seen, f"an event: {', '.join(names) or 'there is none'}", 'source="spike"')
    place = names.index(name)
    return sum(event.size for event in events[:place]), events[place]


def synapse_source(synapses: Sequence[Synapse], layout: Layout) -> str:
    """Source of what `adjsnn.equations.cpu.names` says of synapses."""
    packets, places, deliver, pull = [], [], [], []
    for s, synapse in enumerate(synapses):
        slot, (weight, rows, _) = layout.slots[synapse.state], layout.matrices[synapse.weight]
        each = synapse.delays[1] > 0
        sent = f"{rows if each else 1}"
        packets.append(f"    if s == {s} and {synapse.first} <= g < {synapse.first + synapse.sources}:\n        return {sent}")
        delay = layout.matrices[synapse.delay][0] if each else layout.slots[synapse.delay].first
        at = f"{delay} + j * {rows} + i" if each else (f"{delay} + j" if synapse.delays[0] > 1 else f"{delay}")
        places.append(f"    if s == {s}:\n        return {at}")
        target, element = slot.first, f"{weight} + j * {rows}"
        if each:
            deliver.append(f"    if s == {s}:\n        y[{target} + i] += p[{element} + i]")
            pull.append(f"    if s == {s}:\n        pb[{element} + i] += bar[{target} + i]")
        else:
            loop = f"    if s == {s}:\n        for k in range({rows}):\n"
            deliver.append(f"{loop}            y[{target} + k] += p[{element} + k]")
            pull.append(f"{loop}            pb[{element} + k] += bar[{target} + k]")
    firsts = tuple(x.first for x in synapses) or (0,)
    most = sum(layout.matrices[x.weight][1] if x.delays[1] else 1 for x in synapses)
    parts = [
        f"KINDS = {len(synapses)}\nFIRSTS = {firsts!r}\nMOST = {most}",
        _function("packets_of(s, g)", packets, "return 0"),
        _function("delay_place(s, j, i)", places, "return 0"),
        _function("deliver(s, j, i, p, y)", deliver, "return"),
        _function("pull_delivery(s, j, i, bar, pb)", pull, "return"),
    ]
    return "\n\n".join(parts) + "\n"


def _function(head: str, cases: Sequence[str], end: str) -> str:
    return "\n".join([f"def {head}:", *cases, f"    {end}"])
