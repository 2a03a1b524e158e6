"""A trained ReLU network as a spiking network whose rates are its activations, equation (5.13)."""

from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from adjsnn.checks import Number, finite, number, positive, real, same_kind, steps_in
from adjsnn.errors import ConfigurationError
from adjsnn.lif.network import LIFNetwork
from adjsnn.rules.stated import LAYER_ERROR, OTHERS, OWN, Stated
from adjsnn.solutions import check_face
from adjsnn.solve import solve
from adjsnn.spikes import SpikeTrains

Encode = Literal["current", "regular", "poisson"]
ENCODE = ("current", "regular", "poisson")


class Converted:
    """A LIFNetwork that computes a ReLU network by its rates (5.13). Cao 2015, Diehl 2015, Rueckauer 2017.

        converted = Converted(model, data, t_end=200.0)
        logits = converted.outputs(converted.solve(x))

    Weights are scaled so that the largest activation of a layer over the data is a rate of `rate`. A ReLU at the end is a
    layer of neurons like the others; a Linear at the end is `net.w_out`, which reads the rates of the last layer, and its
    bias is added by `outputs`. The neurons leak slowly and reset as far below 0 as their threshold is above, so that leak
    cancels to second order, and start half-way, so that counts are rounded and not cut off. Event-exact neurons reach their
    threshold and never jump beyond it: a reset to a value loses nothing, as one by subtraction on a clock does. There,
    `solve(x, dt=0.5, adjoint=SurrogateBPTT(reset="by"))` is the choice, and reset="to" loses what steps overshoot.

    Args:
        model: a torch.nn.Sequential of Linear and ReLU in turn, at least one of each.
        data: inputs over which the largest activations are taken, (B, n_in), in the dtype of the model.
        rate: ρ, of the largest activation, spikes per ms.
        t_end: length of a trial, ms. Errors of rates fall as 1/t_end, those of "poisson" as 1/√t_end.
        encode: inputs as a constant "current", of any sign; or as spikes of a rate, of inputs ≥ 0, "regular" or "poisson".
        percentile: of the activations of a layer that counts as the largest, in percent; 99.9 leaves outliers out, whose rates
            are then above ρ. A clock cuts rates off at 1/dt.
        tau_mem: ms, default 10 t_end. A neuron whose drive is below one spike in 2 tau_mem is silent.
        tau_syn: ms. Each layer is as much later.

    Attributes:
        net: the LIFNetwork, of the dtype and on the device of the model. Its weights and biases can learn on.
        scales: λ, the activation that is a rate of ρ: of the inputs, and of each layer.
        rate: ρ.
        t_end: as given.
        tau_mem: that of the neurons, ms.
        tau_syn: as given.
        encode: as given.

    Raises:
        ConfigurationError: another kind of model, or one that computes something else than its layers; data of another shape
            or kind; a layer that is silent over the data.
    """

    stated: ClassVar[Stated] = Stated(
        "everything that spikes: the gradient is that of a ReLU network (5.13)",
        (OWN, LAYER_ERROR, OTHERS),
        "activations of the ReLU network, B N, without time",
        "B W, without spikes; a trial must be long",
    )

    def __init__(
        self,
        model: nn.Sequential,
        data: Tensor,
        *,
        rate: Number = 0.1,
        t_end: Number = 200.0,
        encode: Encode = "current",
        percentile: Number = 100.0,
        tau_mem: Number | None = None,
        tau_syn: Number = 1.0,
    ) -> None:
        linear, spiking = _layers(model)
        if encode not in ENCODE:
            raise ConfigurationError(f"encode={encode!r}", f"one of {list(ENCODE)}", 'encode="current"')
        self.encode = encode
        self.rate = positive("rate", rate, "a positive number of spikes per ms", "rate=0.1")
        self.t_end = positive("t_end", t_end, remedy="t_end=200.0")
        self.tau_mem = 10.0 * self.t_end if tau_mem is None else positive("tau_mem", tau_mem)
        self.tau_syn, share = (
            positive("tau_syn", tau_syn),
            number("percentile", percentile, "a number in 0 … 100", "percentile=99.9"),
        )
        if not 0.0 < share <= 100.0:
            raise ConfigurationError(f"percentile={percentile!r}", "a number in 0 … 100", "percentile=99.9")
        self._like = linear[0].weight.detach()
        with torch.no_grad():
            x = self._checked(data)
            self.scales = _scales(model, linear, spiking, x, share, encode != "current")
            self.net = self._network(linear, spiking)
            # What the last layer's rates are worth, fixed here: the network may learn on.
            last = linear[spiking:]
            self._decode = None if not last else (last[0].weight * self.scales[-1] / self.rate).clone()
            self._offset = None if not last or last[0].bias is None else last[0].bias.clone()

    def inputs(self, x: Tensor, *, dt: Number | None = None, generator: torch.Generator | None = None) -> Tensor | SpikeTrains:
        """Inputs of `adjsnn.solve`: currents (T, B, n_in), in steps of dt, or spikes.

        Args:
            x: inputs of the model, (B, n_in).
            dt: length of the currents' steps, ms; default t_end, one step. Not for spikes.
            generator: source of Poisson spikes; default torch's global one.

        Raises:
            ConfigurationError: inputs of another shape or kind, negative ones as spikes, or a dt that does not divide t_end.
        """
        x = self._checked(x)
        if self.encode == "current":
            return x.expand(self._steps(dt), *x.shape)
        if dt is not None:
            raise ConfigurationError("dt for input spikes", "none: they need no grid", "leaving it out")
        rates = x * (self.rate / float(self.scales[0]))
        if self.encode == "poisson":
            return SpikeTrains.poisson(1000.0 * rates, self.t_end, generator=generator)
        counts = (rates * self.t_end + 0.5).floor().long()
        sample, neuron = counts.nonzero(as_tuple=True)
        repeats = counts[sample, neuron]
        first = repeats.cumsum(0) - repeats
        turn = torch.arange(int(repeats.sum()), device=x.device) - first.repeat_interleave(repeats)
        sample, neuron = sample.repeat_interleave(repeats), neuron.repeat_interleave(repeats)
        time = ((turn + 0.5) / rates[sample, neuron]).clamp(max=self.t_end)  # half-way, as the neurons start
        batch, n_in = x.shape
        ones = torch.ones_like(neuron)
        return SpikeTrains.from_events(sample, neuron, time, ones, batch=batch, n_neurons=n_in, t_max=self.t_end)

    def solve(self, x: Tensor, *, generator: torch.Generator | None = None, **options: Any) -> Any:
        """`adjsnn.solve` of the network and these inputs.

        Args:
            x: inputs of the model, (B, n_in).
            generator: as of `inputs`.
            options: of `adjsnn.solve`; on a clock adjoint and dt.

        Raises:
            ConfigurationError: another t_end than the conversion's.
        """
        if options.get("t_end", self.t_end) != self.t_end:
            raise ConfigurationError(
                f"t_end={options['t_end']!r} of inputs over {self.t_end:g} ms",
                "the conversion's own",
                f"Converted(..., t_end={options['t_end']!r})",
            )
        if self.encode != "current":
            return solve(self.net, self.inputs(x, generator=generator), **options)
        options = {"dt": self.t_end} | options
        return solve(self.net, self.inputs(x, dt=options["dt"]), **options)

    def outputs(self, sol: Any) -> Tensor:
        """What the model would say, in its units, (B, C), from the rates of the last layer; without gradient.

        It is read by the converted readout, whatever the network learnt since.

        Args:
            sol: a solution of the network.

        Raises:
            ConfigurationError: another kind of solution.
        """
        check_face(sol, "layer_counts", "a LIFSolution")
        rates = sol.layer_counts().to(self._like) / sol.t_end
        if rates.shape[1] != self.net.layers[-1]:
            raise ConfigurationError(f"a solution of {rates.shape[1]} neurons", f"{self.net.layers[-1]}", "solve(x)")
        if self._decode is None:
            return rates * (float(self.scales[-1]) / self.rate)
        found = rates @ self._decode.T
        return found if self._offset is None else found + self._offset

    def rates(self, x: Tensor) -> Tensor:
        """The rate of a neuron of a constant activation, 1/ms, in closed form (5.13): ρx to second order, 0 where x is small.

        Args:
            x: activations in units of their layer's λ, of any shape.
        """
        drive = 2.0 * self.rate * self.tau_mem * real("x", x, "activations", "torch.as_tensor(x)")  # I in units of θ/2
        fires = drive > 1.0
        return torch.where(fires, 0.5 / self.tau_mem / (1.0 / torch.where(fires, drive, 2.0)).atanh(), 0.0)

    def _network(self, linear: list[nn.Linear], spiking: int) -> LIFNetwork:
        """θ = v_th - v_reset = 1: a weight w moves v by w τ_s/τ_m, a current or bias I for 1 ms by I/τ_m."""
        hidden, last = linear[:spiking], linear[spiking:]
        biases = [
            layer.weight.new_zeros(layer.out_features)
            if layer.bias is None
            else layer.bias * (self.rate * self.tau_mem / scale)
            for layer, scale in zip(hidden, self.scales[1:], strict=True)
        ]
        net = LIFNetwork(
            hidden[0].in_features,
            [layer.out_features for layer in hidden],
            tau_mem=self.tau_mem,
            tau_syn=self.tau_syn,
            v_th=0.5,
            v_reset=-0.5,
            bias=tuple(x.detach() for x in biases),
            n_out=last[0].out_features if last else None,
            learn=("weights", "bias"),
            generator=torch.Generator(),  # what it draws is overwritten, and torch's global one stays where it is
            dtype=self._like.dtype,
            device=self._like.device,
        )
        for k, (layer, (below, scale)) in enumerate(zip(hidden, pairwise(self.scales), strict=True)):
            of_current = k == 0 and self.encode == "current"
            gain = self.rate * self.tau_mem / scale if of_current else below / scale * self.tau_mem / self.tau_syn
            net.w_in[k].copy_(layer.weight * gain)
        if net.w_out is not None:
            net.w_out.copy_(last[0].weight * (self.scales[-1] / self.rate))
        return net

    def _checked(self, x: object) -> Tensor:
        expected = f"(B, {self._like.shape[1]}) numbers"
        x = real("inputs", x, expected, "torch.as_tensor(x)").detach()
        if x.dim() != 2 or x.shape[1] != self._like.shape[1] or not len(x):
            raise ConfigurationError(f"inputs of shape {tuple(x.shape)}", expected, "x.flatten(1)")
        same_kind("inputs", x, self._like, "x.to(model[0].weight)")
        finite("inputs", x, "finite numbers", "checking where they come from")
        if self.encode != "current" and bool((x < 0.0).any()):
            raise ConfigurationError(f"inputs down to {float(x.min()):g} as spikes", "inputs ≥ 0", 'encode="current"')
        return x

    def _steps(self, dt: Number | None) -> int:
        if dt is None:
            return 1
        steps, filled = steps_in(self.t_end, positive("dt", dt, remedy="dt=0.5"))
        if not steps or not filled:
            raise ConfigurationError(f"steps of {dt!r} ms in {self.t_end:g} ms", "a whole number of them", "dt=0.5")
        return steps


def _layers(model: object) -> tuple[list[nn.Linear], int]:
    """Its Linear layers, and how many of them a ReLU follows, which are all or all but the last."""
    wanted, remedy = "a torch.nn.Sequential of Linear and ReLU in turn", "nn.Sequential(nn.Linear(…), nn.ReLU(), nn.Linear(…))"
    if not isinstance(model, nn.Sequential):
        raise ConfigurationError(f"a model of type {type(model).__name__}", wanted, remedy)
    parts = list(model)
    for k, part in enumerate(parts):
        if not isinstance(part, nn.ReLU if k % 2 else nn.Linear):
            raise ConfigurationError(f"{type(part).__name__} in place {k} of the model", wanted, remedy)
    linear: list[Any] = parts[::2]
    if len(parts) < 2:
        raise ConfigurationError(f"a model of {len(parts)} parts", f"{wanted}, at least one of each", remedy)
    like = linear[0].weight
    if like.dtype not in (torch.float32, torch.float64):
        raise ConfigurationError(f"a model of {like.dtype}", "torch.float32 or torch.float64", "model.double()")
    for below, above in pairwise(linear):
        if below.out_features != above.in_features:
            raise ConfigurationError(f"{below.out_features} outputs into {above.in_features} inputs", "as many", remedy)
    for part in linear:
        for name, x in part.named_parameters():
            same_kind(name, x, like, "model.to(device, dtype)")
            finite(name, x.detach(), "finite parameters", "training it anew")
    return linear, len(parts) // 2


def _scales(model: nn.Sequential, linear: list[nn.Linear], spiking: int, x: Tensor, share: float, spikes: bool) -> list[float]:
    """λ: the largest input, 1 of currents, and the largest activation of each layer, or its percentile."""

    def largest(name: str, activations: Tensor) -> float:
        top = float(np.percentile(activations.cpu().numpy(), share))
        if not top > 0.0:
            raise ConfigurationError(
                f"{name} whose largest activation over the data is {top:g}", "a positive one", "other data"
            )
        return top

    scales, a = [largest("inputs", x) if spikes else 1.0], x
    for k, layer in enumerate(linear):
        a = torch.nn.functional.linear(a, layer.weight, layer.bias)
        if k < spiking:
            a = a.relu()
            scales.append(largest(f"layer {k}", a))
    said = model(x)
    if said.shape != a.shape or not torch.allclose(said, a, rtol=1e-3, atol=1e-4 * float(a.abs().max())):
        raise ConfigurationError(
            "a model that computes something else than its Linear and ReLU layers", "one without hooks", "removing them"
        )
    return scales
