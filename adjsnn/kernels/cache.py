"""Compiled loops are kept on disk between runs; this throws them away when the source of any of them changed.

numba looks only at the file that defines a function, so a change in `vectors.py` would leave old loops of `gated_euler.py` in
use: wrong numbers, silently.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def renew(functions: Iterable[Any]) -> None:
    """Delete the kept code of compiled functions unless it was made from the kernels' present sources.

    Args:
        functions: one compiled function from each file that is compiled with a cache.
    """
    sources = sorted(Path(__file__).parent.glob("*.py"))
    mark = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    for function in functions:
        if not hasattr(function, "py_func"):  # the compiler is switched off
            continue
        file = Path(function.py_func.__code__.co_filename).stem
        folder = Path(function.stats.cache_path)
        note = folder / f"{file}.sources"
        try:
            if note.exists() and note.read_text() == mark:
                continue
            for kept in folder.glob(f"{file}.*.nbi"):
                kept.unlink(missing_ok=True)
            folder.mkdir(parents=True, exist_ok=True)
            note.write_text(mark)
        except OSError:  # nowhere to write: then numba keeps nothing there either
            continue
