#!/bin/sh
# expelliarmus: times of an EVT 3.0 file run ahead by 4096 µs whenever the lower half of a time begins anew.
#
# Expected: the format sends the upper 12 bits of a time (EVT_TIME_HIGH) and the lower 12 (EVT_TIME_LOW) in words of 16 bits, each
# when it changes, so that the time is high * 4096 + low µs. Events at 3087, 6068 and 10252 µs are read at these times.
# Seen: 3087, 10164 and 14348 µs. Where high and low both change and the new low is smaller, 4096 µs are added to a high that has
# counted them already: of a regular train of 20 s the last event comes at 40 s. All events are there, in order and at their
# pixels, so nothing tells. The same events as EVT 2.0 are read rightly, and another reader (faery) reads this file rightly.
# Source: https://docs.prophesee.ai/stable/data/encoding_formats/evt3.html
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile expelliarmus==1.1.12 faery==0.7.1 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'EOF'
from importlib.metadata import version
from pathlib import Path

import faery
import numpy as np
from expelliarmus import Wizard


def write(path, times):
    """One event at x = 1, y = 2, of polarity 1, at each time: words of 16 bits, their type in the upper four."""
    words, high = [], None
    for t in times:
        if t >> 12 != high:
            high = t >> 12
            words.append(0x8000 | (high & 0xFFF))  # EVT_TIME_HIGH
        words += [0x6000 | (t & 0xFFF), 2, 0x2000 | 1 << 11 | 1]  # EVT_TIME_LOW, EVT_ADDR_Y, EVT_ADDR_X
    Path(path).write_bytes(b"% evt 3.0\n% geometry 640x480\n% end\n" + np.array(words, dtype="<u2").tobytes())


def faerys(path):
    return np.concatenate(list(faery.events_stream_from_file(path)))["t"].tolist()


print("expelliarmus", version("expelliarmus"), " faery", version("faery"))
few, train = [3087, 6068, 10252], list(range(1000, 20_000_000, 2000))
write("few.raw", few)
write("train.raw", train)
read, long = (Wizard(encoding="evt3").read(f"{name}.raw")["t"].tolist() for name in ("few", "train"))
print("written", few, " expelliarmus", read, " faery", faerys("few.raw"))
print(f"the last of {len(train)}: written {train[-1]}, expelliarmus {long[-1]}")
a = np.zeros(3, dtype=[("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1")])
a["t"] = few
Wizard(encoding="evt2").save("few2.raw", a)
assert Wizard(encoding="evt2").read("few2.raw")["t"].tolist() == few
assert faerys("few.raw") == few
assert faerys("train.raw") == train
assert read == [3087, 10164, 14348]
assert len(long) == len(train)
assert long[-1] > 1.9 * train[-1]
EOF
