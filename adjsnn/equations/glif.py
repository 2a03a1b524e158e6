"""GLIF neurons of the Allen Institute as text."""

from collections.abc import Mapping
from typing import Any


def glif_text(
    options: Mapping[str, Any], weight: float
) -> tuple[str, dict[str, str], dict[str, str], dict[str, float], dict[str, float]]:
    """Text, thresholds, resets, constants and the state at rest of a GLIF neuron, (6.1), (6.2), (6.9).

    Args:
        options: of the LIFNetwork that it is, voltages in mV above rest, times in ms.
        weight: of the current, mV/pA.
    """
    held = "(1 - held)*" if options["refractory"] > 0.0 else ""
    constants = {"weight": weight, **{name: options[name] for name in ("tau_mem", "v_th", "v_reset")}}
    currents, level, lines, reset = "", "v_th", [], "v = v_reset"
    if "reset" in options:
        constants["kept"], reset = options["reset"], "v = kept*(v - v_th) + v_reset"
    own = zip(*(options.get(f"{x}_adapt", ()) for x in ("tau", "jump", "scale")), strict=True)
    for k, (tau, jump, scale) in enumerate(own, 1):
        constants |= {f"tau_{k}": tau, f"jump_{k}": jump, f"scale_{k}": scale}
        currents += f" + a_{k}"
        lines.append(f"da_{k}/dt = -a_{k}/tau_{k}  # an afterspike current, in mV")
        reset += f"; a_{k} = scale_{k}*a_{k} + jump_{k}"
    if "tau_th" in options:
        constants |= {"tau_th": options["tau_th"][0], "jump_th": options["jump_th"][0]}
        level, reset = f"{level} + h", f"{reset}; h += jump_th"
        lines.append("dh/dt = -h/tau_th  # what spikes add to the threshold, mV")
    if "tau_follow" in options:
        constants |= {"tau_follow": options["tau_follow"], "gain": options["gain_follow"]}
        level += " + q"
        lines.append(f"dq/dt = {held}(gain*v - q)/tau_follow  # what follows v in the threshold, mV")
    thresholds, resets = {"spike": f"v > {level}"}, {"spike": reset}
    if held:
        constants["refractory"] = options["refractory"]
        lines += ["dheld/dt = 0  # 1 while refractory", "dclock/dt = held  # ms since the spike"]
        thresholds["release"], resets["release"] = "clock > refractory", "held = 0; clock = 0"
        resets["spike"] += "; held = 1; clock = 0"
    lines.insert(0, f"dv/dt = {held}(weight*I{currents} - v)/tau_mem  # mV above rest")
    rest = {line[1 : line.index("/")]: 0.0 for line in lines}
    return "\n".join([*lines, ""]), thresholds, resets, constants, rest
