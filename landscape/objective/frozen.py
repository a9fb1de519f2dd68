"""A model as a landscape holds it: a copy in eval mode, whose derivatives are all visible."""

import copy
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from landscape.errors import InputError, words_of
from landscape.objective.bags import Bag
from landscape.objective.batches import COMPRESSED, HALF
from landscape.objective.derivatives import leaves_of, need_recording, twice_differentiable
from landscape.objective.gathered import Weight, in_use, is_sharded, unsharded
from landscape.objective.keeping import OF_MODULES, computed, hide, kept, written
from landscape.objective.params import ParamSpace
from landscape.objective.shards import Shard, local
from landscape.objective.sums import PIECE

OWN = 1e-5  # relative: how far the copy's loss may lie from the model's, which runs the same operations
IN_HALF = 0.05  # the same for one that computes in half precision
WRITTEN = (
    "an evaluation of the copy that is measured changed your model itself: make a hook a method of the "
    "module, register_forward_hook(self.save), or let it use the module that it is given"
)
LOOKUPS = (nn.Embedding, nn.EmbeddingBag)
LossOf = Callable[[nn.Module], Tensor]
M = TypeVar("M", bound=nn.Module)


class _WithoutGraphs(TorchFunctionMode):
    """Copies what torch does not: compressed sparse tensors, and computed ones, which then hold no numbers.

    A model keeps such tensors of its last call: features, attention weights, a loss of its own, the weights
    that the older `weight_norm` and `prune` of torch compute. The next call overwrites them. What reads one
    before that depends on a call that the copy does not know, and finds NaN.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is not Tensor.__deepcopy__ or (args[0].is_leaf and args[0].layout not in COMPRESSED):
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        made = tensor.detach().clone() if tensor.is_leaf else torch.full_like(tensor, torch.nan)
        return memo.setdefault(id(tensor), made)


def duplicate(module: M, shared: Mapping[int, Any] | None = None) -> M:
    """Return a deep copy, `_WithoutGraphs`.

    Args:
        shared: what the copy shares with the module, by id.

    Raises:
        InputError: it cannot be copied.
    """
    try:
        with torch.no_grad(), _WithoutGraphs():  # otherwise a copied TorchScript parameter is None
            return copy.deepcopy(module, dict(shared or {}))
    except (RuntimeError, TypeError) as error:  # of a lock or a file
        called = getattr(type(module), "COPIED", "the model")
        raise InputError(f"{called} cannot be copied: {str(error).partition('. ')[0]}") from error


def twin(module: M, others: Mapping[int, Any] | None = None) -> M:
    """Return a copy that shares all tensors: what it keeps of an evaluation, the module does not have.

    Args:
        others: what it has in place of some tensors, by their ids.
    """
    shared = {id(t): t for t in (*module.parameters(), *module.buffers())}
    return duplicate(module, {**shared, **(others or {})})


def as_parameters(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[int, Any]:
    """Return, by the id of each parameter of a model, one that is the weight of its name, if there is one."""
    found: dict[int, Any] = {}
    for name, parameter in model.named_parameters():
        weight = weights.get(name)
        if isinstance(weight, Shard):
            found[id(parameter)] = Weight(weight)
        elif weight is not None and weight.shape == parameter.shape:
            found[id(parameter)] = nn.Parameter(weight, requires_grad=False)
    return found


def frozen_copy(model: nn.Module) -> nn.Module:
    """Return a copy in eval mode, whose weights are at least float32.

    Raises:
        InputError: it is not a model, has lazy parameters or an embedding with `max_norm`, or cannot be
            copied; or the inference mode is on, and the copy could never be differentiated.
    """
    need_recording()
    if not isinstance(model, nn.Module):
        raise InputError(
            f"a model must be a torch.nn.Module, not {type(model).__name__}; build the module, and load "
            "weights into it by model.load_state_dict or landscape.load_weights; several as a ModuleDict"
        )
    lazy = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if is_lazy(tensor)]
    if lazy:
        raise InputError(f"{lazy[0]} is lazy and has no shape yet; call the model once: model(inputs)")
    shared = {} if _has_own_modes(model) else _sharing(model)  # else `.eval()` may write to weights
    frozen = _copied(model, shared).eval()
    if any(p.dtype in HALF for p in frozen.parameters()):
        warnings.warn(
            "weights in half precision are measured in float32, which resolves small steps", stacklevel=3
        )
        frozen = frozen.float()
    for module in frozen.modules():
        if isinstance(module, LOOKUPS) and module.max_norm is not None:
            raise InputError("an embedding has max_norm, which rewrites its weights when it is read")
    return _held(frozen)


def faithful(model: nn.Module, frozen: nn.Module, loss: LossOf) -> tuple[nn.Module, Any]:
    """Return a copy that hides no gradient, and whose loss is checked to be that of the model in eval mode.

    Where `.eval()` runs code of the model's own (layers that merge low-rank updates into a weight which is
    not trained do), the loss may not depend on the trained weights any more. Then the copy stays as it is in
    training, apart from dropout and the like, if that is the same loss. A model that neither does this nor
    hides a gradient is evaluated once.

    Args:
        model: the user's.
        frozen: its `frozen_copy`.
        loss: maps a module to its summed loss of the first batch.

    Returns:
        The copy, and its loss; None if it has none.

    Raises:
        InputError: the loss uses the model itself, or reads what it writes there, and not the module that it
            is given; it makes parameters, or reads what an earlier call has computed; or a copy without
            hidden gradients has another loss than the model.
    """
    with torch.enable_grad(), twice_differentiable:
        if is_sharded(uncompiled(model)):
            return _visible(frozen), _as_in_use(uncompiled(model), frozen, loss)
        live, first = uncompiled(model), twin(frozen)
        before = kept(live)
        try:
            expected = loss(first)
        except Exception:  # told where the loss is evaluated in earnest
            expected = None
        if isinstance(expected, Tensor):
            own = {id(p): name for name, p in model.named_parameters()}
            if used := [own[id(leaf)] for leaf in leaves_of(expected) if id(leaf) in own]:
                raise InputError(
                    f"the loss uses {used[0]!r} of your model itself; it must use the model that it is "
                    "given, loss(model, batch), and hooks the module that they are given"
                )
        changed = [key for key in written(before, kept(live)) if key[1] not in OF_MODULES]
        hide(frozen, live, changed)
        if changed and _reads(loss, frozen, live, expected):
            raise InputError(WRITTEN)
        if made := [n for n in dict(first.named_parameters()) if n not in dict(frozen.named_parameters())]:
            raise InputError(f"the model makes {made[0]} when it is called; call it once: model(inputs)")
        if not isinstance(expected, Tensor):
            return _visible(frozen), None  # told there, too
        if expected.isnan().any() and (read := computed(model)):
            raise InputError(
                f"the loss is NaN without {read[0]!r}, which an earlier call of the model has computed; "
                "compute it anew in each call, or detach it"
            )
        candidates = [frozen]
        if _has_own_modes(model):
            candidates.insert(0, _as_in_training(model))
            hide(candidates[0], live, changed)
        elif not any(map(_hides, frozen.modules())):
            return frozen, expected.detach()
        for candidate in map(_visible, candidates):
            found = loss(twin(candidate))
            if torch.allclose(found, expected.to(found), rtol=OWN, atol=0, equal_nan=True):
                return candidate, found.detach()
    raise InputError(
        f"the copy that is measured has a loss of {float(found):g} on the first batch, "
        f"and the model in eval mode {float(expected):g}"
    )


def _as_in_use(model: nn.Module, frozen: nn.Module, loss: LossOf) -> Tensor:
    """Return the loss of a sharded model's copy, checked to be what the model itself gives under its shards.

    Raises:
        InputError: it is not, as where the model's own code knows how it is sharded.
    """
    found = loss(frozen).detach()
    with in_use(model) as half:
        try:
            expected = loss(model)
        except Exception as error:  # the user's own code may raise anything; its traceback stays above
            raise InputError(
                f"the loss of the sharded model cannot be evaluated: {words_of(error)}"
            ) from error
    if half:
        warnings.warn("a model that computes in half precision is measured in float32", stacklevel=4)
    if not torch.allclose(found, expected.to(found), rtol=IN_HALF if half else OWN, atol=0, equal_nan=True):
        raise InputError(
            f"the loss of the model on the first batch is {float(expected):g} as it is sharded, and "
            f"{float(found):g} as a whole; its code must not depend on how it is sharded"
        )
    return found


def uncompiled(model: nn.Module) -> nn.Module:
    """Return the module that `torch.compile` wraps: its code can be differentiated once only."""
    found: nn.Module = getattr(model, "_orig_mod", model)
    return found


def held_still(model: nn.Module) -> list[str]:
    """Return the names of the parameters that were not trained: those frozen, unless all are."""
    model = uncompiled(model)
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    return frozen if len(frozen) < len(list(model.parameters())) else []


def settled(
    frozen: nn.Module, space: Callable[[nn.Module], ParamSpace], owner: nn.Module | None = None
) -> ParamSpace:
    """Return the space of a copy's parameters, which become views of its θ: no second copy is held.

    Args:
        frozen: a `frozen_copy`.
        space: makes the space of a module.
        owner: the model, if it may share all parameters with the copy. Those that take part lie in θ then;
            the memory where they lay is freed.
    """
    params = space(frozen)
    parts = params.split(params.theta)
    for name, parameter in frozen.named_parameters():
        if name in parts:
            parameter.data = parts[name]
        elif owner is None:
            parameter.data = parameter.data.clone()
    if owner is not None:
        _share(owner, parts)
    return params


def fingerprint(weights: Iterable[Tensor]) -> list[tuple[int, str]]:
    """Return a hash and a sum of each tensor's values, which tell whether something was written there."""
    found = []
    for part in (local(weight.data) for weight in weights):
        some = torch.split(part.reshape(-1), PIECE) if part.numel() else ()
        sums = [(torch.hash_tensor(s).view(torch.int64), s.sum(dtype=torch.float64)) for s in some]
        for hashes, totals in [zip(*sums, strict=True)] if sums else []:
            mixed = torch.hash_tensor(torch.stack(hashes)).view(torch.int64)
            found.append((int(mixed), float(torch.stack(totals).sum()).hex()))  # NaN equals itself in words
    return found


def _share(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Let a model's parameters lie where a copy of them lies: their values stay, and the memory is freed."""
    for name, parameter in uncompiled(model).named_parameters():
        found = weights.get(name)
        if found is not None and found.dtype == parameter.dtype and torch.equal(found, parameter):
            parameter.data = found


def _reads(loss: LossOf, hidden: nn.Module, model: nn.Module, expected: Any) -> bool:
    """Tell whether a loss needs what an evaluation has written to the model.

    Args:
        hidden: a copy that does not hold it.
        expected: the loss of a copy that holds what was there before; None if it failed.
    """
    copied = hidden if expected is not None else duplicate(model)
    try:
        found = loss(twin(copied))
    except Exception:  # the user's own code may raise anything
        return expected is not None
    return not isinstance(expected, Tensor) or not torch.allclose(found, expected, rtol=OWN, atol=0)


def _sharing(model: nn.Module) -> dict[int, Any]:
    """Return, by the id of each plain parameter, one of the same memory that needs no gradient."""
    plain = (p for p in model.parameters() if type(p) is nn.Parameter)
    return {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in plain}


def _has_own_modes(model: nn.Module) -> bool:
    """Tell whether `.train()` and `.eval()` run code of the model's own."""
    return any(type(module).train is not nn.Module.train for module in uncompiled(model).modules())


def _copied(model: nn.Module, shared: Mapping[int, Any] | None = None) -> nn.Module:
    live = uncompiled(model)
    return unsharded(live) if is_sharded(live) else duplicate(live, shared)


def _as_in_training(model: nn.Module) -> nn.Module:
    """Return a copy that was told to train, in eval mode by its flags alone."""
    held = _held(_copied(model).train())
    for module in held.modules():
        module.training = False
    return held.float() if any(p.dtype in HALF for p in held.parameters()) else held


def _held(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


def _hides(module: nn.Module) -> bool:
    """Tell whether a lookup shows another gradient than the loss has, in another form, or once only."""
    if type(module) is nn.EmbeddingBag:
        return True
    return isinstance(module, LOOKUPS) and (
        module.sparse or module.scale_grad_by_freq or module.padding_idx is not None
    )


def _visible(frozen: nn.Module) -> nn.Module:
    """Let every lookup have the gradient that the loss has, and this one derivatives.

    The `padding_idx` of an embedding hides a gradient; that of an `EmbeddingBag` changes the value.
    """
    for module in frozen.modules():
        if isinstance(module, LOOKUPS):
            module.sparse = module.scale_grad_by_freq = False
        if isinstance(module, nn.Embedding):
            module.padding_idx = None
        if type(module) is nn.EmbeddingBag:
            module.__class__ = Bag
    return frozen


def present(module: M, model: nn.Module, params: ParamSpace) -> tuple[M, Tensor]:
    """Return a module that holds a frozen `model`, with all weights and buffers of the model now; and its θ.

    Raises:
        InputError: the model does not have the parameters and buffers that the module knows, or is sharded.
    """
    if params.sharded:
        raise InputError("a sharded model cannot be followed while it trains; make a new objective of it")
    copied, live = duplicate(module), uncompiled(model)
    tensors = dict(live.named_parameters()) | dict(live.named_buffers())
    frozen = copied.get_submodule("model")
    with torch.no_grad():
        for name, tensor in (*frozen.named_parameters(), *frozen.named_buffers()):
            tensor.copy_(_like(tensors, name, tensor))
        return copied, params.join(dict(frozen.named_parameters()))


def _like(tensors: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    """Return a named tensor, in the dtype and on the device of `like`.

    Raises:
        InputError: there is none, or it has another shape.
    """
    found = tensors.get(name)
    if found is None or found.shape != like.shape:
        said = "is missing" if found is None else f"has shape {tuple(found.shape)}, not {tuple(like.shape)}"
        raise InputError(f"the model is not the one that the objective was made of: {name} {said}")
    return found.detach().to(like)
