"""How numba compiles loops here: what only they call becomes machine code in them alone.

numba optimises every function by itself and makes machine code of it, and once more in each function that calls it: in a chain
of n functions the innermost is compiled n times. What nothing but loops call waits instead, and is optimised where it is linked
in, with the loop that Python calls.
"""

import gc
from typing import Any

from numba._dynfunc import make_function
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler


class Loop(Compiler):
    """The compiler of a loop that Python calls; the garbage collector, which takes an eighth of its time, waits."""

    def compile_extra(self, func: Any) -> Any:
        enabled = gc.isenabled()
        gc.disable()
        try:
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

    def compile_extra(self, func: Any) -> Any:
        state = self.state
        state.flags = state.flags.copy()
        state.flags.no_compile = state.flags.no_cpython_wrapper = state.flags.no_cfunc_wrapper = True
        state.library = _Waiting(state.targetctx.codegen(), func.__qualname__)
        result = super().compile_extra(func)
        description = result.fndesc
        entry = make_function(description.lookup_module(), func.__name__, "", 0, result.environment, (result.library,))
        state.targetctx.insert_user_function(entry, description, [result.library])
        return result._replace(entry_point=entry)

    def _link_environments(self, result: Any) -> None:
        """There is nothing yet that could read them."""


class _Waiting(JITCodeLibrary):
    """Code that is linked into other code, and neither optimised as a whole nor made machine code of before that."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True
