"""Compiles the CPU loops by numba and keeps their machine code on disk between runs.

numba's own cache looks only at the file that defines a function, so a change in `vectors.py` would leave old loops of
`euler.py` in use: wrong numbers, silently. Processes that fill it at once can leave the code of one signature under the
name of another; and it raises where a file is damaged, the disk is full or no folder can be written. Here a folder is named
after all sources of a family's loops, which stand in one package, each file in it holds the code for one signature, is replaced
as a whole and states what it holds, and whatever goes wrong with the disk costs a compilation and one warning.
"""

import hashlib
import logging
import pickle
import re
import shutil
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import llvmlite
import numba
from numba.core import config, types
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

from adjsnn.errors import KernelCacheWarning
from adjsnn.numerics.within import Loop, Within

STATES = 4  # states of a family's sources whose code is kept; some 10 MB each
# Of loops in which rounding must stay what it is written as: sums are not reordered, products and sums may be fused.
EXACT: dict[str, Any] = {"fastmath": {"contract"}, "nogil": True, "error_model": "numpy"}
EXACT_INLINE: dict[str, Any] = EXACT | {"forceinline": True}
REORDERED: dict[str, Any] = EXACT_INLINE | {"fastmath": {"contract", "reassoc"}}  # of sums, which vectors take at once
WITHIN: dict[str, Any] = {"pipeline_class": Within}  # called by loops alone, and never from Python, which would crash
EXACT_WITHIN: dict[str, Any] = EXACT | WITHIN
# Allocates nothing: references to arrays are not counted.
EXACT_BARE: dict[str, Any] = EXACT_WITHIN | {"_nrt": False}
# The same without a call: one with the arrays of a network for arguments takes as long as a loop over a hundred neurons.
EXACT_BARE_INLINE: dict[str, Any] = EXACT_BARE | {"forceinline": True}
EXACT_PIECE: dict[str, Any] = EXACT | {"inline": "always"}  # of one loop: its code is put in there, and compiled once
# As it is written, to the bit what the same operations on tensors are: products and sums are not fused.
AS_WRITTEN: dict[str, Any] = {"nogil": True, "error_model": "numpy", "_nrt": False}
AS_WRITTEN_WITHIN: dict[str, Any] = AS_WRITTEN | WITHIN
AS_WRITTEN_INLINE: dict[str, Any] = AS_WRITTEN_WITHIN | {"forceinline": True}
REORDERED_BARE: dict[str, Any] = REORDERED | WITHIN | {"_nrt": False}
OPTIONS = (AS_WRITTEN, EXACT, EXACT_INLINE, REORDERED, EXACT_WITHIN, EXACT_BARE, EXACT_BARE_INLINE, EXACT_PIECE)
_COMPILERS = "adjsnn.numerics.compiled", "adjsnn.numerics.within"  # code depends on them whatever imports them
_IMPORTS = re.compile(rb"^from (adjsnn\.[\w.]+) import", re.MULTILINE)
_CONFIG: Any = config  # its attributes come from the environment
_LOG = logging.getLogger("adjsnn")
_said: set[str] = set()
_loaded: dict[str, str | None] = {}  # what the sources of a package were when its first loop was defined


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator like `numba.njit(**options)`, with code that is kept on disk, or that waits for the loops which call it.

    Code is kept in NUMBA_CACHE_DIR where that is set; else beside the sources, or where those cannot be written in the user's
    cache folder. The first loop that is not found there and must be compiled is announced on the logger "adjsnn", which
    writes to stderr unless the program has set up logging otherwise.

    Warns:
        KernelCacheWarning: kept code is damaged, or nothing can be kept; once in a process.
    """

    return lambda function: compiled_as(None, function, **options)


def compiled_as(name: str | None, function: Callable[..., Any], **options: Any) -> Any:
    """The same for a function that was made while the program runs, kept under a name that says all it was made from."""
    pipeline = options.setdefault("pipeline_class", Loop)
    dispatcher: Any = numba.njit(**options)(function)
    if not issubclass(pipeline, Within) and hasattr(dispatcher, "py_func"):  # else the compiler is switched off
        dispatcher._cache = _Kept(function, name)
    return dispatcher


class _Kept(NullCache):
    """Code of one function on disk, in the form that numba's dispatcher asks for; it does so under a lock.

    Args:
        function: the Python function, of a module in a package.
        name: what it is kept under, by default its own name.
    """

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        self.package, _, module = function.__module__.rpartition(".")
        self.function = name or f"{module}.{function.__qualname__}"
        if self.package not in _loaded:  # of what is read later than this, nothing is kept under its name
            _loaded[self.package] = _sources(self.package)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The code for a signature, or None: then the dispatcher compiles."""
        target_context.refresh()
        key = self._key(sig, target_context.codegen())
        for folder in folders(self.package):
            path = folder / self._name(key)
            try:
                return _unpack(path.read_bytes(), key, target_context)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue
            except Exception as error:  # of whatever kind: the loop can always be compiled
                _warn(f"kept code {path} is damaged ({type(error).__name__}: {error}), and the loop compiled again")
        _announce(self.function)
        return None

    def save_overload(self, sig: Any, cres: Any) -> None:
        """Keep new code."""
        loaded = _loaded[self.package]
        if cres.library.has_dynamic_globals or (loaded and _sources(self.package) != loaded):
            return  # addresses of this process, or sources edited since they were loaded
        key, problem = self._key(sig, cres.codegen), "the sources of the loops cannot be read"
        for folder in folders(self.package):
            try:
                _write(folder / self._name(key), _pack(key, cres))
            except OSError as error:
                problem = str(error)
            else:
                return
        _warn(f"compiled loops cannot be kept, so that every process compiles them anew: {problem}")

    def _key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        """All that machine code depends on beside the sources."""
        versions = sys.implementation.cache_tag, numba.__version__, llvmlite.__version__
        settings = bool(_CONFIG.BOUNDSCHECK), bool(_CONFIG.USING_SVML)
        return self.function, sig, _fields(sig), codegen.magic_tuple(), versions, settings

    def _name(self, key: tuple[Any, ...]) -> str:
        return f"{self.function}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.code"


def _fields(kind: Any) -> tuple[Any, ...]:
    """Names of the fields of named tuples among the arguments, in order: a type knows the class alone, which may change."""
    if isinstance(kind, types.NamedTuple):
        return kind.fields, *map(_fields, kind.types)
    return tuple(map(_fields, kind)) if isinstance(kind, tuple) else ()


def folders(package: str) -> list[Path]:
    """Where code from a package's present sources is looked for, in this order, and kept in the first that can be written."""
    loaded = _loaded[package]
    if not loaded:
        return []
    if _CONFIG.CACHE_DIR:
        roots = [Path(_CONFIG.CACHE_DIR)]
    else:
        beside = Path(str(resources.files(package))) / "__pycache__"
        roots = [beside, Path(AppDirs(appname="numba", appauthor=False).user_cache_dir)]
    return [root / f"{package}-{loaded[:16]}" for root in roots]


def _sources(package: str) -> str | None:
    """A hash of every source that a loop of the package can come from; None in an installation without sources."""
    files = sorted((x for x in resources.files(package).iterdir() if x.name.endswith(".py")), key=lambda x: x.name)
    digest = hashlib.sha256(repr([_in_order(options) for options in OPTIONS]).encode())
    outside = set(_COMPILERS)
    for file in files:
        source = file.read_bytes()
        digest.update(file.name.encode() + hashlib.sha256(source).digest())
        outside |= {x.decode() for x in _IMPORTS.findall(source)}
    for module in sorted(outside):  # numbers and instructions that loops take from elsewhere stand in their code
        if module.rpartition(".")[0] != package:
            digest.update(module.encode() + hashlib.sha256(_source(module)).digest())
    return digest.hexdigest() if files else None


def _in_order(options: dict[str, Any]) -> list[tuple[str, Any]]:
    """The options in an order that is that of every process, as that of a set of names is not."""
    return sorted((name, sorted(value) if isinstance(value, set) else value) for name, value in options.items())


def _source(module: str) -> bytes:
    """What a module is read from, nothing if that is not known."""
    spec = find_spec(module)
    read = getattr(spec and spec.loader, "get_data", None)
    return read(spec.origin) if spec and spec.origin and read else b""


def _pack(key: tuple[Any, ...], code: Any) -> bytes:
    body = dumps((key, code._reduce()))
    return hashlib.sha256(body).digest() + body


def _unpack(content: bytes, key: tuple[Any, ...], target_context: Any) -> CompileResult:
    stated, body = content[:32], content[32:]
    if hashlib.sha256(body).digest() != stated:
        raise ValueError("not what was written")
    packed_key, code = pickle.loads(body)
    if packed_key != key:
        raise ValueError("code of another loop")
    return CompileResult._rebuild(target_context, *code)


def _write(path: Path, content: bytes) -> None:
    """The file appears whole or not at all, whoever else writes or reads it."""
    new = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid4().hex}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if new:
        _forget(path.parent.parent, path.parent.name.rpartition("-")[0])


def _forget(root: Path, package: str) -> None:
    """Delete code of all but the newest states of a package's sources; who still uses an older one compiles again."""
    with suppress(OSError):  # another process is at it
        states = sorted(root.glob(f"{package}-*"), key=lambda folder: folder.stat().st_mtime, reverse=True)
        for folder in states[STATES:]:
            shutil.rmtree(folder, ignore_errors=True)


def _announce(function: str) -> None:
    if "compiling" not in _said:
        _said.add("compiling")
        _LOG.warning(  # no warning, but what logging shows unless told otherwise
            "adjsnn: compiling loops for this machine, 5 to 30 s for each kind of network, forward and backward, "
            "at its first use (now %s)",
            function,
        )


def _warn(problem: str) -> None:
    if "warned" not in _said:
        _said.add("warned")
        warnings.warn(
            f"{problem}. Try: the environment variable NUMBA_CACHE_DIR, set to a folder that can be written and has room",
            KernelCacheWarning,
            stacklevel=2,
        )
