"""`Equations`: a hybrid system written as text."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from adjsnn.checks import Count, count, finite, float_dtype, real
from adjsnn.equations.arguments import (
    check_learnt,
    check_parameter,
    check_shape,
    counts_of,
    events_of,
    input_sizes,
    mapping_of,
    matrices_in,
    names_of,
    other_samples,
)
from adjsnn.equations.delivery import Delivers
from adjsnn.equations.dimensions import check_synapses, check_units, checked, in_use, number
from adjsnn.equations.generate import source_of
from adjsnn.equations.lines import plain_name
from adjsnn.equations.model import Model, read_model
from adjsnn.equations.nodes import Layout, layout_of
from adjsnn.equations.start import refuse_infinite
from adjsnn.equations.synapses import check_put_here, keep_wiring, parameters_of, read_synapses, synapse_source, wiring_of
from adjsnn.equations.tensors import Value, changed, evaluator, rows
from adjsnn.equations.units import Dimension
from adjsnn.equations.writer import Program
from adjsnn.errors import ConfigurationError
from adjsnn.hybrid.system import HybridSystem

Names = str | Sequence[str]
Texts = str | Mapping[str, str]
MADE = ("model", "_flow", "_guards", "_resets", "_read", "layout", "source", "wires")  # from what the text says


class Equations(Delivers, HybridSystem):
    """A system ẏ = f(t, y, u; θ) with jumps, written as text, differentiated by its symbols and compiled.

        neuron = adjsnn.Equations(
            "dv/dt = 0.04*v**2 + 5*v + 140 - w + I\\n dw/dt = a*(b*v - w)",
            threshold="v > 30", reset="v = c; w += d",
            parameters=dict(a=0.02, b=0.2, c=-65.0, d=8.0), inputs=("I",), learn=("a", "d"),
        )
        sol = adjsnn.solve(neuron, u, dt=1.0, method="dopri5", y0=neuron.start(batch, v=-65.0, w=-13.0))

    The equations of Brian, in plain numbers: a line `dx/dt = ...` for each state, `x = ...` for what several lines need, and
    remarks after #. `t` is the time in ms. There are + - * / ** and the functions exp, expm1, exprel, log, log1p, log10, sqrt,
    sin, cos, tan, arctan, sinh, cosh, tanh, sigmoid, abs, minimum, maximum, clip; where(v > 0, x, y) and int(v > 0), smooth on
    each side; W @ x for a matrix and a vector, sum(x) and mean(x). A comparison becomes a guard: threshold="v > 30"
    is φ = v - 30, an event is where φ rises through zero; the assignments of the reset follow in order. A vector in a
    comparison means a guard of each unit, whose reset is that of the unit; `g += W @ fired` there adds column j of W to g, when
    unit j fired.

    Units are for all or for none. Where a line ends in one, `: volt`, or a parameter has one, dimensions are checked, 10*ms may
    stand in a text, plain parameters have none, and everything becomes numbers of one system, in which no product needs a
    factor: ms, kHz, mV, pA, nS, pF, GΩ, fC, and μm, mM. Inputs get lines of their own, `I : amp`; `units` says what their
    numbers, and those of states, are in.

    It is a HybridSystem like any other, and `vector_field`, `guard` and `jump` are torch operations. Solved with the default
    adjoint on the CPU, compiled loops run instead, one sample after the other: the same steps, the same gradient; on a GPU too,
    a thread for each sample.

    Args:
        text: the equations.
        threshold: a comparison, or several by name.
        reset: assignments at an event, or several by the same names.
        parameters: numbers; quantities of pint, quantities or Brian2, or text, "10*ms"; tensors () or one number for each
            sample (B,); in a system with vectors (N,), a vector of units, or (B, 1), (B, N), those of each sample; (M, N) where
            `name @` stands in the text, a matrix. In ms and 1/ms where the text means times and rates.
        inputs: names of the entries of u, in order; or a size for each.
        learn: names of parameters that are learnt: they become nn.Parameters of that name.
        size: units of each state, for vectors; one number for all, or by name, 1 where not said.
        readout: expressions of states that are read, "v" or ("v", "w - v"); by default all states.
        initial: the state at the start, by name: numbers, tensors (N,), or expressions of parameters, "b*c".
        synapses: what an event of a unit adds to a state of others, by the state: {"g": {"weight": "W", "delay": "d"}}, names
            of parameters: weights (N_target, N_source), and delays in ms, one (), one for each source (N_source,), or one for
            each weight; of several events "source": its name. With "edges": `adjsnn.Synapses(pre, post)`, a list of E synapses,
            weights are (E,), or those that are `shared`, and delays may be (E,). Several kinds on a state stand in a list.
            Guards must not be raised by what arrives.
        dtype: of parameters that are given as numbers, and of states where there are no other parameters; default torch's.

    Raises:
        ConfigurationError: whatever cannot be right; quotes the line and points at the place.
    """

    def __init__(
        self,
        text: str,
        *,
        threshold: Texts | None = None,
        reset: Texts | None = None,
        parameters: Mapping[str, Any] | None = None,
        inputs: Names | Mapping[str, Count] = (),
        learn: Names = (),
        size: Count | Mapping[str, Count] = 1,
        readout: Names | None = None,
        initial: Mapping[str, Any] | None = None,
        synapses: Mapping[str, Any] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        float_dtype(dtype)
        self.text, self._dtype = text, dtype or torch.get_default_dtype()
        thresholds, resets = events_of(threshold, reset)
        learnt = names_of("learn", learn)
        sizes = counts_of("size", size) if isinstance(size, Mapping) else count("size", size)
        vectors = sizes != 1 if isinstance(sizes, int) else any(n > 1 for n in sizes.values())
        self.numbers: dict[str, float] = {}
        self._own: dict[str, int] = {}  # parameters of each sample, with their sizes
        shapes: dict[str, tuple[int, int]] = {}
        read = None if readout is None else names_of("readout", readout)
        held = mapping_of("initial", initial).items()
        initial = {name: x.clone() if isinstance(x, Tensor) else x for name, x in held}
        texts = {"equations": (text,), "threshold": thresholds.values(), "reset": resets.values(), "readout": read or ()}
        before_at = matrices_in(texts)
        sent = mapping_of("synapses", synapses)
        of_synapses = parameters_of(sent)
        all_given = {self._named(name): value for name, value in mapping_of("parameters", parameters).items()}
        measured = in_use(text, all_given)
        dimensions: dict[str, Dimension] = {}
        for name, value in all_given.items():
            if measured:
                value, dimensions[name] = number(name, value)
            kept = self._take(name, value, learnt=name in learnt, dtype=dtype)
            matrix = name in before_at or (name in of_synapses and len(kept) == 2)
            shapes[name] = self._shape(name, kept, matrix=matrix, vectors=vectors or name in of_synapses)
        self._said = text, thresholds, resets, shapes, input_sizes(inputs), sizes, read, initial, measured
        self.model: Model = read_model(*self._said)
        self.dimensions: dict[str, Dimension] = {}
        if measured:
            events = (list(thresholds.values()), list(resets.values()))
            self.dimensions = check_units(text, *events, read or (), initial, dimensions)
        self.synapses = read_synapses(sent, self.model.states, self.model.events, shapes, self._own)
        check_synapses(self.synapses, self.dimensions)
        check_learnt(learnt, shapes, self.model.used | of_synapses)
        keep_wiring(self)
        self._read_programs()

    def _read_programs(self) -> None:
        """Make the functions of the programs."""
        self._flow = evaluator(self.model.flow)
        self._guards = [evaluator(event.guard) for event in self.model.events]
        self._resets = [evaluator(event.reset) for event in self.model.events]
        self._read = None if self.model.readout is None else evaluator(self.model.readout)

    def __getstate__(self) -> dict[str, Any]:
        return {name: x for name, x in vars(self).items() if name not in MADE}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.model = read_model(*self._said)  # expressions of sympy change their form where they are pickled
        self._read_programs()

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; a parameter that is a number gets another one."""
        if name not in vars(self).get("numbers", ()):
            super().__setattr__(name, value)
            return
        tensor = real(name, checked(name, value, self.dimensions), "a number", f"{name} = 1.0")
        if tensor.dim() or tensor.requires_grad:
            seen = (
                f"{name} of shape {tuple(tensor.shape)}{', learnt,' if tensor.requires_grad else ''} in the place of a number"
            )
            raise ConfigurationError(seen, "a number", f"parameters={{{name!r}: tensor}}, and learn= where it is learnt")
        finite(name, tensor, "a finite number", f"{name} = 1.0")
        self.numbers[name] = float(tensor)

    def _named(self, given: object) -> str:
        """The name of a parameter."""
        name = plain_name(given)
        if (
            name is None
            or hasattr(type(self), name)
            or name in self._modules
            or name in ("text", "model", "numbers", "dimensions", "synapses", "training", "wiring")
        ):
            raise ConfigurationError(f"a parameter {given!r}", "a name without a meaning", f"{str(given).strip('_')}_0")
        return name

    def _take(self, name: str, value: Any, *, learnt: bool, dtype: torch.dtype | None) -> tuple[int, ...]:
        """Keep a parameter; its shape."""
        remedy = f"parameters={{{name!r}: 1.0}}"
        tensor = real(f"parameters[{name!r}]", value, "a number or a tensor of numbers", remedy)
        finite(f"parameters[{name!r}]", tensor, "finite numbers", remedy)
        if tensor.requires_grad and not learnt:
            raise ConfigurationError(f"parameters[{name!r}] that requires a gradient", "learn=", f"learn=({name!r},)")
        if not tensor.dim() and not learnt and not isinstance(value, Tensor):
            self.numbers[name] = float(tensor)
            return ()
        own = isinstance(value, Tensor) and tensor.is_floating_point() and dtype is None
        kept = tensor.detach().clone() if own else tensor.detach().to(dtype or torch.get_default_dtype(), copy=True)
        if learnt:
            setattr(self, name, nn.Parameter(kept))
        else:
            self.register_buffer(name, kept)
        return tuple(kept.shape)

    def _shape(self, name: str, shape: tuple[int, ...], *, matrix: bool, vectors: bool) -> tuple[int, int]:
        """(rows, columns) of a parameter; columns 0 where it is no matrix. Notes those of each sample."""
        if 0 in shape or len(shape) > 2:
            raise ConfigurationError(f"parameters[{name!r}] of shape {shape}", "(), (N,), (B, N) or (M, N)", "a smaller tensor")
        if matrix:
            if len(shape) != 2:
                raise ConfigurationError(
                    f"parameters[{name!r}] of shape {shape} before @", "a matrix (M, N)", "torch.zeros(M, N)"
                )
            return shape[0], shape[1]
        if len(shape) == 2 or (shape and not vectors):
            self._own[name] = shape[1] if len(shape) == 2 else 1
            return self._own[name], 0
        return (shape[0] if shape else 1), 0

    @property
    def units(self) -> dict[str, str]:
        """Where the equations have units, those of the numbers of states, parameters and inputs, by name."""
        return {name: str(dimension) for name, dimension in self.dimensions.items()}

    @property
    def states(self) -> tuple[str, ...]:
        """Names of the states, in the order of their entries."""
        return tuple(self.model.states)

    def of(self, y: Tensor, name: str) -> Tensor:
        """One state out of states (..., D): (...), or (..., N) of a vector.

        Raises:
            ConfigurationError: no state of that name, or y of another width.
        """
        if name not in self.model.states:
            raise ConfigurationError(f"the state {name!r}", f"one of {', '.join(self.states)}", f"of(y, {self.states[0]!r})")
        if not isinstance(y, Tensor) or not y.dim() or y.shape[-1] != self.model.width:
            seen = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise ConfigurationError(f"y of {seen}", f"states (..., {self.model.width})", "of(sol.y, name)")
        part = y.split(list(self.model.states.values()), -1)[self.states.index(name)]
        return part.squeeze(-1) if self.model.states[name] == 1 else part

    def start(self, batch: Count = 1, *, dtype: torch.dtype | None = None, **values: Any) -> Tensor:
        """A state to start from, (B, D), from `initial` and what is said here, by name.

        Args:
            batch: B.
            dtype: of the state; by default that of the parameters, or torch's.
            values: numbers, or tensors (B,), (N,) or (B, N).

        Raises:
            ConfigurationError: a state without a value; a name that is no state; a wrong shape.
        """
        batch = count("batch", batch)
        like = next((x for x in (*self.parameters(), *self.buffers()) if x.is_floating_point()), None)
        dtype = dtype or (self._dtype if like is None else like.dtype)
        device = None if like is None else like.device
        unknown = values.keys() - self.model.states.keys()
        missing = [x for x in self.states if x not in values and x not in self.model.initial]
        if unknown or missing:
            seen = f"a value of {sorted(unknown)[0]!r}" if unknown else f"no value of {missing[0]!r}"
            example = f"start({batch}, {(missing or list(self.states))[0]}=0.0)"
            raise ConfigurationError(seen, f"one for each of {', '.join(self.states)}", example)
        empty = torch.empty(batch, 0, dtype=dtype, device=device)
        parts = []
        for name, n in self.model.states.items():
            value = checked(name, values.get(name, self.model.initial.get(name)), self.dimensions)
            if isinstance(value, Program):
                value = evaluator(value)(self._values(empty, None, {}))[0]
                parts.append(rows(value, n, empty))
                continue
            tensor = real(f"{name}", value, "a number or a tensor", f"{name}=0.0").to(device, dtype)
            tensor = tensor.unsqueeze(1) if n == 1 and tensor.dim() == 1 else tensor
            try:
                parts.append(tensor.expand(batch, n))
            except RuntimeError:
                seen = f"{name} of shape {tuple(tensor.shape)}"
                raise ConfigurationError(seen, f"a number, ({n},) or ({batch}, {n})", f"{name}=0.0") from None
        return torch.cat(parts, 1)

    def initial_state(self, batch: int) -> Tensor:
        """The state of `initial`, (B, D)."""
        return self.start(batch)

    def name_of_guard(self, guard: int) -> str:
        """The name of its threshold, and the unit."""
        names = [(event, unit) for event in self.model.events for unit in range(event.size)]
        event, unit = names[guard]
        return f"the threshold {event.name!r}" + (f", unit {unit}," if event.size > 1 else "")

    def check_start(self, t: Tensor, y: Tensor, u: Tensor | None) -> None:
        """Refuse a start where f or a guard has no value; quotes the line and names the divisor that is zero."""
        check_put_here(self)
        for name, kept in self.model.parameters.items():
            if name not in self.numbers:  # here rows are samples, so none stands for several
                check_parameter(name, getattr(self, name), kept, len(y) if name in self._own else None)
        values = self._values(y, t, self.inputs_of(u))
        refuse_infinite(self.model.flow, values, "dy/dt")
        for event in self.model.events:
            refuse_infinite(event.guard, values, f"the threshold {event.name!r}")

    def vector_field(self, t: Tensor, y: Tensor, u: Tensor | None) -> Tensor:
        """dy/dt, (R, D)."""
        results = self._flow(self._values(y, t, self.inputs_of(u)))
        return torch.cat([rows(x, n, y) for x, n in zip(results, self.model.states.values(), strict=True)], 1)

    def guard(self, t: Tensor, y: Tensor) -> Tensor | None:
        """φ of every guard, (R, G)."""
        if not self.model.events:
            return None
        values = self._values(y, t, {})
        return torch.cat([rows(of(values)[0], x.size, y) for of, x in zip(self._guards, self.model.events, strict=True)], 1)

    def jump(self, t: Tensor, y: Tensor, fired: Tensor) -> Tensor:
        """The state after the reset of the guard that fired, (R, D)."""
        values = self._values(y, t, {})
        first = 0
        for event, evaluate in zip(self.model.events, self._resets, strict=True):
            y = changed(self.model, event, values, evaluate, y, fired[:, first : first + event.size])
            first += event.size
        return y

    def readout(self, y: Tensor) -> Tensor:
        """What is read of states, (rows, C_out)."""
        if self._read is None:
            return y
        results = self._read(self._values(y, None, {}))
        widths = [max(x.shape[-1] if isinstance(x, Tensor) else 1, 1) for x in results]
        return torch.cat([rows(x, n, y) for x, n in zip(results, widths, strict=True)], 1)

    def inputs_of(self, u: Tensor | None) -> Mapping[str, Value]:
        """Inputs (R, C) by name.

        Raises:
            ConfigurationError: another number than the equations have.
        """
        width = sum(self.model.inputs.values())
        seen = 0 if u is None else u.shape[-1]
        if seen != width:
            names = ", ".join(self.model.inputs) or "none"
            raise ConfigurationError(
                f"{seen} inputs",
                f"{width}: {names}",
                f"u of shape (T, B, {width})" if width else "u=None",
            )
        if u is None:
            return {}
        return dict(zip(self.model.inputs, u.split(list(self.model.inputs.values()), 1), strict=True))

    def _values(self, y: Tensor, t: Tensor | None, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Values of all names for rows of states."""
        values: dict[str, Value] = {**self.numbers, **inputs}
        for name, kept in self.model.parameters.items():
            if name in self.numbers:
                continue
            x = getattr(self, name)
            check_shape(name, x.shape, kept, own=name in self._own)
            if name in self._own:
                x = x.unsqueeze(1) if x.dim() == 1 else x
                if len(x) != len(y) and len(x) != 1:  # rows of several times stand one after the other
                    if len(y) % len(x):
                        raise other_samples(name, len(x), len(y))
                    x = x.repeat(len(y) // len(x), 1)
            values[name] = x
        if t is not None:
            values["t"] = t
        if y.shape[1]:
            if y.shape[1] != self.model.width:
                sizes = ", ".join(name if n == 1 else f"{n} of {name}" for name, n in self.model.states.items())
                raise ConfigurationError(
                    f"a state of {y.shape[1]} entries",
                    f"{self.model.width}: {sizes}",
                    f"y0=system.start(B, {self.states[0]}=0.0)",
                )
            values |= dict(zip(self.model.states, y.split(list(self.model.states.values()), 1), strict=True))
        return values

    @cached_property
    def layout(self) -> Layout:
        """Where the compiled loops find everything."""
        return layout_of(self.model, self._own)

    @cached_property
    def source(self) -> str:
        """The functions that are compiled, as Python source."""
        return source_of(self.model, self.layout) + "\n\n" + synapse_source(self.synapses, self.layout)

    @cached_property
    def wires(self) -> Any:
        """Lists of synapses as the compiled loops take them."""
        return wiring_of(self.synapses)[0]

    @property
    def needs_loops(self) -> str | None:
        """Why compiled loops alone can solve the system; None where torch's operations can, too."""
        return "the steps of synapses with delays are found by compiled loops alone" if self.synapses else None

    def compiled_body(self) -> Any:
        """What runs this system in compiled loops."""
        # torch gives a module with parametrizations a class of its own, which says the same of other tensors.
        own = type(self) is Equations or (is_parametrized(self) and type(self).__bases__ == (Equations,))
        why_not = None if own else f"{type(self).__name__} may have changed what the equations say"
        return import_module("adjsnn.equations.body").CompiledBody(self, why_not)  # loads the compiler

    def extra_repr(self) -> str:
        """The equations."""
        return "; ".join(line.strip() for line in self.text.splitlines() if line.strip())
