"""State dicts that SAM loads: its own, those of the optimizer it wraps, and those of other SAMs."""

import copy
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

State = dict[str, Any]
PARTS = {"state", "param_groups"}


def loadable(state: Mapping[str, Any], base: Optimizer, radius: str, adaptive: bool) -> State:
    """Return a state in the form of SAM's own, whose groups say what `base` and SAM need.

    Other states than SAM's own are taken too: a plain optimizer's, and those of other implementations of SAM.
    They keep their optimizer's state in an entry (`{"base_optimizer": …}`), or their own tensors (`old_p`,
    `e_w`) beside it.

    Args:
        state: what to load.
        base: the optimizer that is to load it.
        radius: what SAM's radius is called in the groups.
        adaptive: whether SAM is.

    Raises:
        ValueError: it is not an optimizer's state, or it is that of another optimizer, without the moments of
            this one, or of an adaptive SAM where this one is not, or the reverse.
    """
    own = "steps" in state and state.keys() >= PARTS
    found = dict(state) if own else _adopted(state, base, adaptive)
    kept = (radius,) if own else (radius, "perturb")
    told = {radius: state["rho"]} if own and "rho" in state else {}  # written before groups had their own
    if len(found["param_groups"]) == len(base.param_groups):  # otherwise the wrapped optimizer refuses it
        found["param_groups"] = [
            {key: group[key] for key in kept if key in group} | told | saved
            for group, saved in zip(base.param_groups, found["param_groups"], strict=True)
        ]
    return found


def _adopted(state: Mapping[str, Any], base: Optimizer, adaptive: bool) -> State:
    found = _of_optimizer(state)
    for saved in (*state.get("param_groups", []), *found["param_groups"]):
        if saved.get("adaptive", adaptive) != adaptive:
            raise ValueError(
                f"the state is of SAM with adaptive={saved['adaptive']}, but this one has adaptive={adaptive}"
            )
    groups = [{key: value for key, value in g.items() if key != "adaptive"} for g in found["param_groups"]]
    kept = dict(found["state"])
    for saved, group in zip(groups, base.param_groups, strict=False):  # `base` refuses other numbers
        for number, p in zip(saved["params"], group["params"], strict=False):
            if number in kept:
                kept[number] = _needed(kept[number], _keys(base, saved, p), type(base).__name__)
    return {"state": kept, "param_groups": groups}


def _of_optimizer(state: Mapping[str, Any]) -> State:
    inner = [value for value in state.values() if isinstance(value, dict) and value.keys() >= PARTS]
    if len(inner) == 1:
        return inner[0]
    if state.keys() >= PARTS:
        return dict(state)
    keys = ", ".join(map(str, state)) or "none"
    raise ValueError(
        f"this is not an optimizer's state: it needs 'state' and 'param_groups', its keys are {keys}"
    )


def _needed(entry: State, keys: set[str] | None, name: str) -> State:
    """Return a parameter's state without what the optimizer does not keep."""
    if keys is None:
        return entry
    if missing := sorted(keys - entry.keys()):
        raise ValueError(
            f"the state has no {', '.join(missing)}, which {name} keeps: it is of another optimizer, or of a "
            "SAM that did not save its optimizer's state; load the weights alone"
        )
    return {key: value for key, value in entry.items() if key in keys}


def _keys(base: Optimizer, settings: State, p: Tensor) -> set[str] | None:
    """Return what `base` keeps of a parameter like `p`, found by a step on a tiny one; None if it cannot."""
    tiny = torch.zeros([min(size, 1) for size in p.shape], dtype=p.dtype, device=p.device, requires_grad=True)
    tiny.grad = torch.ones_like(tiny)
    probe = copy.copy(base)  # without its hooks
    probe.state = defaultdict(dict)
    own = next(iter(base.param_groups))
    probe.param_groups = [{**own, **settings, "params": [tiny]}]
    try:
        probe.step()
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError):
        return None
    return set(probe.state[tiny])
