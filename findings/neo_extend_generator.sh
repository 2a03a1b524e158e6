#!/bin/sh
# neo: lists of a Segment, extended by a generator, stay empty.
#
# Expected: segment.spiketrains.extend(...) "extends the SpikeTrainList with additional SpikeTrain's from an iterable", as list.extend
# does: of a generator of three trains all three.
# Seen: none, and nothing tells. The generator is run through for a check of each train, and is empty when its trains are to be
# added. A list of the same trains is added whole. So it is with segment.events and the other lists.
# Source: https://neo.readthedocs.io/en/latest/api_reference.html, SpikeTrainList.extend
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile neo==0.14.6 quantities==0.16.4 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'EOP'
import neo

print("neo", neo.__version__)


def trains():
    return (neo.SpikeTrain([0.5 * k], units="s", t_stop=3.0) for k in range(3))


def events():
    return (neo.Event([0.5 * k], units="s", labels=["x"]) for k in range(3))


segment = neo.Segment()
segment.spiketrains.extend(trains())
segment.events.extend(events())
print("of three, by a generator:", len(segment.spiketrains), "trains,", len(segment.events), "events")
assert (len(segment.spiketrains), len(segment.events)) == (0, 0)
segment.spiketrains.extend(list(trains()))
segment.events.extend(list(events()))
print("by a list:", len(segment.spiketrains), "trains,", len(segment.events), "events")
assert (len(segment.spiketrains), len(segment.events)) == (3, 3)
EOP
