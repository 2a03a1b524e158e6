"""How numba compiles loops here: what only they call becomes machine code in them alone.

numba optimises every function by itself and makes machine code of it, and once more in each function that calls it: in a chain
of n functions the innermost is compiled n times. What nothing but loops call waits instead, and is optimised where it is linked
in, with the loop that Python calls.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numba._dynfunc import make_function
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.registry import cpu_target

ATTRIBUTE = '"prefer-vector-width"="512"'  # of functions; LLVM takes half of that on machines whose clocks it fears for
ALIGNMENT = 64  # bytes: a vector across two cache lines is read and written half as fast


class _Code(JITCodeLibrary):
    """Loops over the longest vectors that the machine has."""

    def add_ir_module(self, ir_module: Any) -> None:
        for function in ir_module.functions:
            if not function.is_declaration:
                set.add(function.attributes, ATTRIBUTE)  # llvmlite's own `add` takes what it knows alone
        super().add_ir_module(ir_module)


class _Waiting(_Code):
    """Code that is linked into other code, and neither optimised as a whole nor made machine code of before that."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


@contextmanager
def _boundaries() -> Iterator[None]:
    """Arrays that loops allocate begin on boundaries of cache lines, where `np.empty` is compiled meanwhile."""
    name, context = "get_preferred_array_alignment", cpu_target.target_context
    before = vars(context).get(name)
    setattr(context, name, lambda _: ALIGNMENT)
    try:
        yield
    finally:
        delattr(context, name)
        if before:
            setattr(context, name, before)


class Loop(Compiler):
    """The compiler of a loop that Python calls; the garbage collector, which takes an eighth of its time, waits."""

    code = _Code

    def compile_extra(self, func: Any) -> Any:
        if self.state.library is None:
            self.state.library = self.code(self.state.targetctx.codegen(), func.__qualname__)
            self.state.library.enable_object_caching()
        enabled = gc.isenabled()
        gc.disable()
        try:
            with _boundaries():
                result = super().compile_extra(func)
        finally:
            if enabled:
                gc.enable()
        self._link_environments(result)
        return result

    def _link_environments(self, result: Any) -> None:
        """Where code that is linked in reads the environments of its functions, as numba does for a loop from disk."""
        for environment in result._find_referenced_environments():
            result.library.codegen.set_env(environment.env_name, environment)


class Within(Loop):
    """The compiler of a function that only loops call; called from Python it crashes."""

    code = _Waiting

    def compile_extra(self, func: Any) -> Any:
        state = self.state
        state.flags = state.flags.copy()
        state.flags.no_compile = state.flags.no_cpython_wrapper = state.flags.no_cfunc_wrapper = True
        state.library = self.code(state.targetctx.codegen(), func.__qualname__)
        result = super().compile_extra(func)
        description = result.fndesc
        entry = make_function(description.lookup_module(), func.__name__, "", 0, result.environment, (result.library,))
        state.targetctx.insert_user_function(entry, description, [result.library])
        return result._replace(entry_point=entry)

    def _link_environments(self, result: Any) -> None:
        """There is nothing yet that could read them."""
