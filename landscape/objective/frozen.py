"""A model as a landscape holds it: a copy in eval mode, whose derivatives are all visible."""

import copy
import warnings

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from landscape.errors import InputError
from landscape.objective.batches import HALF


def frozen_copy(model: nn.Module) -> nn.Module:
    """Return a copy in eval mode that hides no gradient and whose weights are at least float32.

    Raises:
        InputError: it is no model, has lazy parameters or an embedding with `max_norm`, or cannot be copied.
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            f"a model must be a torch.nn.Module, not {type(model).__name__}; build the module, "
            "and load weights into it with model.load_state_dict or landscape.load_weights"
        )
    lazy = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if is_lazy(tensor)]
    if lazy:
        raise InputError(f"{lazy[0]} is lazy and has no shape yet; call the model once: model(inputs)")
    model = uncompiled(model)
    try:
        with torch.no_grad():
            frozen = copy.deepcopy(model).eval()
    except RuntimeError as error:
        raise InputError(f"the model cannot be copied: {str(error).partition('. ')[0]}") from error
    if any(p.dtype in HALF for p in frozen.parameters()):
        warnings.warn(
            "weights in half precision are measured in float32, which resolves small steps", stacklevel=3
        )
        frozen = frozen.float()
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    for module in frozen.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            if module.max_norm is not None:
                raise InputError("an embedding has max_norm, which rewrites its weights when it is read")
            module.padding_idx = None
    return frozen


def uncompiled(model: nn.Module) -> nn.Module:
    """Return the module that `torch.compile` wraps: its code can be differentiated once only."""
    found: nn.Module = getattr(model, "_orig_mod", model)
    return found


def held_still(model: nn.Module) -> list[str]:
    """Return the names of the parameters that were not trained: those frozen, unless all are."""
    model = uncompiled(model)
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    return frozen if len(frozen) < len(list(model.parameters())) else []
