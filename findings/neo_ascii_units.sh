#!/bin/sh
# neo: AsciiSpikeTrainIO cannot read the file that it has just written.
#
# Expected: write_segment writes numbers, one train a line, and read_segment, whose argument `unit` says what they are in, reads them.
# Seen: each time is written with its unit, "0.5 s", and reading ends in a ValueError: could not convert string to float. Trains in
# ms are written as "500.0 ms". A file of bare numbers is read, and its times are as written.
# Source: https://neo.readthedocs.io/en/latest/iolist.html
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile neo==0.14.6 quantities==0.16.4 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'EOP'
from pathlib import Path

import neo
import quantities as pq

print("neo", neo.__version__)
segment = neo.Segment()
segment.spiketrains.append(neo.SpikeTrain([0.5, 1.25, 2.0], units="s", t_stop=3.0))
neo.AsciiSpikeTrainIO("written.txt").write_segment(segment)
text = Path("written.txt").read_text()
print("written:", repr(text))
assert text.split("\t")[0] == "0.5 s"
try:
    neo.AsciiSpikeTrainIO("written.txt").read_segment(unit=pq.s)
except ValueError as error:
    print("read:", error)
else:
    raise AssertionError("it is read now")
Path("bare.txt").write_text("0.5\t1.25\t2.0\n")
(train,) = neo.AsciiSpikeTrainIO("bare.txt").read_segment(unit=pq.s).spiketrains
print("bare numbers:", train)
assert train.magnitude.tolist() == [0.5, 1.25, 2.0]
EOP
