"""What a model keeps of its evaluations, in buffers and attributes: what was written, and how to hide it."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

Kept = dict[tuple[str, str], list[tuple[Any, int]]]


def kept(module: nn.Module) -> Kept:
    """Return what a module holds in buffers and attributes, and how often each tensor was written to.

    What lists and dictionaries of its own hold belongs to it. An LSTM's list of its weights is left out,
    which differs wherever weights are swapped.

    Returns:
        What there is, by the names of the part and its attribute.
    """
    return {
        (path, name): [
            (value, _writes(value)) for value in ([whole] if name in OF_MODULES else _inside(whole))
        ]
        for path, part in module.named_modules()
        for name, whole in (*part._buffers.items(), *vars(part).items())
        if not name.startswith("_flat_weight")
    }


OF_MODULES = frozenset(vars(nn.Module()))


def _writes(value: Any) -> int:
    return value._version if isinstance(value, Tensor) and not value.is_inference() else 0


def _inside(whole: Any) -> list[Any]:
    """Return a value, and what it holds where it is a list or a dictionary, however deep."""
    found, seen = [whole], set[int]()
    for value in found:  # which grows
        if isinstance(value, dict | list) and id(value) not in seen:
            seen.add(id(value))
            found += value.values() if isinstance(value, dict) else value
    return found


def written(before: Kept, after: Kept) -> list[tuple[str, str]]:
    """Return what a module has kept of an evaluation between two calls of `kept`, or given up."""
    return [key for key in before | after if not _same(before.get(key, []), after.get(key, []))]


def _same(before: list[tuple[Any, int]], after: list[tuple[Any, int]]) -> bool:
    return len(before) == len(after) and all(
        old is new and times == again for (old, times), (new, again) in zip(before, after, strict=True)
    )


def hide(copied: nn.Module, model: nn.Module, changed: Iterable[tuple[str, str]]) -> None:
    """Let a copy hold no numbers where evaluations of it write to the model itself: its own are old.

    Args:
        changed: names of the parts and their attributes. What both share is not old.
    """
    parts, own = (dict(module.named_modules()) for module in (copied, model))
    for path, name in changed:
        part, found = parts.get(path), getattr(own[path], name, None)
        shared = isinstance(found, dict | list) and getattr(part, name, None) is found
        if part is not None and part is not own[path] and not shared:
            held: dict[str, Any] = part._buffers if name in part._buffers else part.__dict__
            held[name] = _numberless(found)


def _numberless(value: Any, memo: dict[int, Any] | None = None) -> Any:
    """Return the same shape of lists and dictionaries, around themselves too, with NaN for what they hold."""
    memo = {} if memo is None else memo
    if isinstance(value, Tensor):
        return torch.full_like(value, torch.nan, dtype=None if value.is_floating_point() else torch.float32)
    if id(value) in memo or not isinstance(value, dict | list):
        return memo.get(id(value), math.nan)
    found: Any = memo.setdefault(id(value), {} if isinstance(value, dict) else [])
    if isinstance(value, dict):
        found.update((key, _numberless(held, memo)) for key, held in value.items())
    else:
        found.extend(_numberless(held, memo) for held in value)
    return found


def computed(model: nn.Module) -> list[str]:
    """Return the names of what a model keeps of its last call, with the graph of that call."""
    held = (pair for module in model.modules() for pair in vars(module).items())
    return [name for name, value in held if isinstance(value, Tensor) and not value.is_leaf]
