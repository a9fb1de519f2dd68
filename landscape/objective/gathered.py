"""A sharded model (FSDP2's `fully_shard`, `parallelize_module`) as one that each rank evaluates whole.

FSDP2's hooks and redistributions of DTensor are not made for second derivatives. So the model is copied
without them: each weight is gathered where an operation reads it, and dropped after that. Graphs keep shares
instead of weights, and gather them anew. Every rank evaluates the same batches with the same weights, and
keeps its share of the derivatives.
"""

import copy
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from landscape.errors import InputError
from landscape.objective.batches import HALF
from landscape.objective.params import ParamSpace
from landscape.objective.shards import METADATA, Shard, ShardedSpace, Together, local, shard
from landscape.runtime.dealing import Dealt, Gather, objects
from landscape.runtime.ranks import ALONE, Ranks

OF_TORCH = "torch.distributed."
_ASKED = ("size", "dim", "ndim", "numel", "is_floating_point", "grad", "__hash__")
_WRITING = ("__set__", "__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__")
WRITES = "the model writes to its weights, which it cannot where they are sharded"
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def kind_of(model: Any, changed: bool) -> tuple[type[ParamSpace], Ranks]:
    """Return what vectors of a model's parameters are, and the ranks that evaluate it together.

    Args:
        changed: whether it is to be measured by something that a sharded model does not have.

    Raises:
        InputError: it is; or as `is_sharded`.
    """
    if not is_sharded(model):
        return ParamSpace, ALONE
    if changed:
        raise InputError("a sharded model is measured with copy=True and statistics='kept'")
    return ShardedSpace, Together()


def is_sharded(model: Any) -> bool:
    """Tell whether parameters of a model are DTensors, or are managed by `fully_shard`.

    Raises:
        InputError: they are sharded by the first FSDP, which keeps no parameter of its own.
    """
    if "torch.distributed.tensor" not in sys.modules or not isinstance(model, nn.Module):
        return False
    model = getattr(model, "_orig_mod", model)
    names = {kind.__name__ for module in model.modules() for kind in type(module).__mro__}
    if "FullyShardedDataParallel" in names:
        raise InputError(
            "FullyShardedDataParallel hides the parameters of the model; use fully_shard of "
            "torch.distributed.fsdp instead"
        )
    return "FSDPModule" in names or any(map(_is_dtensor, model.parameters()))


def _is_dtensor(tensor: Tensor) -> bool:
    return type(tensor.data).__name__ == "DTensor"


class Weight(Tensor):
    """A parameter of which this rank holds a share: any operation on it sees the whole, gathered for it."""

    _share: Shard

    @staticmethod
    def __new__(cls, share: Tensor) -> "Weight":
        assert isinstance(share, Shard)
        (shape,) = share.dealt.shapes
        made: Weight = Tensor._make_wrapper_subclass(
            cls, shape, dtype=share.dtype, device=share.device, requires_grad=False
        )
        made._share = share
        return made

    @property
    def data(self) -> Shard:
        """This rank's share."""
        return self._share

    @data.setter
    def data(self, share: Tensor) -> None:
        share = share.data if isinstance(share, Weight) else share
        if not isinstance(share, Shard):
            raise InputError(WRITES)
        self._share = share

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override] # an attribute there
        """That of the share, which may have become another since."""
        return self._share.dtype

    def __deepcopy__(self, memo: dict[int, Any]) -> "Weight":
        return Weight(self._share.clone())

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.__self__.__name__ if func.__name__ == "__get__" else func.__name__
        if name == "requires_grad_":
            if args[1:] != (False,):
                raise InputError("the model keeps weights where torch.func does not reach them")
            return args[0]
        if args and isinstance(args[0], Weight) and (name in _WRITING or name.strip("_") + "_" == name):
            raise InputError(WRITES)
        if name in ("detach", "double", "float"):
            return Weight(getattr(args[0].data, name)())
        if name in METADATA or name in _ASKED:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        args, kwargs = tree_map_only(Weight, _whole, (args, kwargs))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, *_: Any) -> Any:
        raise InputError(f"a weight of a sharded model was not gathered for {func}")


def _whole(weight: Weight) -> Tensor:
    found: Tensor = Gather.apply(local(weight.data), weight.data.dealt)  # type: ignore[no-untyped-call] # torch's
    return found


def unsharded(model: nn.Module) -> nn.Module:
    """Return a copy of a sharded model without what shards it, whose parameters are `Weight`s.

    Raises:
        InputError: the ranks do not hold one model, its parameters do not lie on all ranks, or it cannot be
            copied.
    """
    _reshard(model)
    _need_one_model(model)
    memo: dict[int, Any] = {id(p): Weight(_share(p)) for name, p in model.named_parameters()}
    memo |= {id(buffer): _full(buffer).clone() for buffer in model.buffers()}
    memo |= {id(module): object.__new__(_own_class(module)) for module in model.modules()}
    try:
        for module in model.modules():
            vars(memo[id(module)]).update(_state(module, memo))
    except (RuntimeError, TypeError, AssertionError) as error:
        raise InputError(f"the model cannot be copied: {str(error).partition('. ')[0]}") from error
    found: nn.Module = memo[id(model)]
    return found


@contextmanager
def in_use(model: nn.Module) -> Iterator[bool]:
    """Let a sharded model be evaluated as it is, in eval mode; yield whether in half precision."""
    modes = {module: module.training for module in model.modules()}
    states = [ask() for module in modes if callable(ask := getattr(module, "_get_fsdp_state", None))]
    for module in modes:
        module.training = False
    try:
        with torch.no_grad():
            yield any(state._mp_policy.param_dtype in HALF for state in states)
    finally:
        for module, mode in modes.items():
            module.training = mode
        _reshard(model)


def _reshard(model: nn.Module) -> None:
    """Put the shards back in place of what FSDP2 leaves gathered after a call."""
    for module in model.modules():
        if callable(reshard := getattr(module, "reshard", None)):
            reshard()


def _need_one_model(model: nn.Module) -> None:
    import torch.distributed as dist

    named: list[tuple[str, Any]] = [*model.named_parameters(), *model.named_buffers()]
    told = [(name, t.shape, t.dtype, None if _is_dtensor(t) else _hash(t)) for name, t in named]
    for other in objects(told):
        if [entry[:3] for entry in other] != [entry[:3] for entry in told]:
            raise InputError(
                "the ranks hold different parameters, as the stages of a pipeline do; every rank must hold a "
                "share of each, as by fully_shard or parallelize_module"
            )
        if different := [mine[0] for mine, its in zip(told, other, strict=True) if mine != its]:
            raise InputError(
                f"{different[0]} is not sharded and differs between the ranks; give all of them the same "
                "(torch.distributed.broadcast)"
            )
    for name, t in named:
        if _is_dtensor(t) and t.device_mesh.size() != dist.get_world_size():
            raise InputError(
                f"{name} lies on {t.device_mesh.size()} of {dist.get_world_size()} ranks; give fully_shard "
                "or parallelize_module a mesh of all ranks"
            )


def _hash(tensor: Tensor) -> int:
    return int(torch.hash_tensor(tensor.detach())) if tensor.numel() else 0


def _share(parameter: Tensor) -> Shard:
    """Return this rank's share of a parameter, which is gathered for it."""
    import torch.distributed as dist

    dealt = Dealt((parameter.shape,), dist.get_rank(), dist.get_world_size())
    return shard(dealt.share_of(_full(parameter)), dealt)


def _full(tensor: Any) -> Tensor:
    found: Tensor = tensor.detach()
    return tensor.detach().full_tensor() if _is_dtensor(tensor) else found


def _own_class(module: nn.Module) -> type:
    """Return the class that a module had before `fully_shard` put another in front."""
    kinds = type(module).__mro__
    return next(kind for kind in kinds if not any(base.__name__ == "FSDPModule" for base in kind.__mro__))


def _state(module: nn.Module, memo: dict[int, Any]) -> dict[str, Any]:
    """Return a deep copy of a module's attributes, without those that shard it."""
    found: dict[str, Any] = {}
    for key, value in vars(module).items():
        if key.startswith("__composable_api") or (callable(value) and _of_torch(value)):
            continue
        if _of_torch(type(value)):  # a mesh
            memo[id(value)] = value
        if isinstance(value, Tensor) and value.grad_fn is not None:  # a hook computes it anew
            memo[id(value)] = value.detach().clone()
        kept = OrderedDict((n, h) for n, h in value.items() if not _of_torch(h)) if key in HOOKS else value
        found[key] = copy.deepcopy(kept, memo)
    return found


def _of_torch(part: Any) -> bool:
    """Tell whether a function or a class is one of those that shard a model."""
    return str(getattr(getattr(part, "func", part), "__module__", "")).startswith(OF_TORCH)
