"""Weights that hooks of torch compute from other parameters: pruned ones, and older weight_norm and spectral_norm."""

from torch import nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

KINDS = (BasePruningMethod, SpectralNorm, WeightNorm)


def renew(module: nn.Module) -> None:
    """Compute such weights of `module` anew from the present parameters, as a call of the module would.

    What torch.nn.utils.parametrize does needs none of it: there a weight is computed whenever it is read.
    """
    waiting, seen = [module], {module}
    for part in waiting:  # as module.modules(), in a tenth of its time
        if part._modules:
            new = [child for child in part._modules.values() if child is not None and child not in seen]
            seen.update(new)
            waiting += new
        for hook in part._forward_pre_hooks.values():
            if isinstance(hook, KINDS):
                hook(part, ())


def stale(module: nn.Module) -> str | None:
    """Name of a weight of that kind which nothing will compute anew: one of a module that is never called; None without."""
    for name, part in module.named_modules():
        if part is module or isinstance(part, (nn.ParameterList, nn.ParameterDict)):
            for hook in part._forward_pre_hooks.values():
                if isinstance(hook, KINDS):
                    tensor = getattr(hook, "_tensor_name", None) or getattr(hook, "name", "weight")
                    return f"{name}.{tensor}" if name else str(tensor)
    return None
