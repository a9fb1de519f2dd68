"""Vectors of a model that is sharded among processes: of each vector, every rank holds a share.

The flat numbers of each parameter tensor are dealt to the ranks in order and in equal shares, the last ones
filled up with zeros. This does not depend on how the model itself is sharded, and every number is at one rank
only, also of a parameter that all ranks hold. So an inner product is the sum of the ranks' own, and a norm is
the norm of theirs.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from landscape.errors import InputError
from landscape.objective.identity import UNKNOWN
from landscape.objective.params import ParamSpace
from landscape.runtime.dealing import Dealt, gathered, objects, regathering
from landscape.runtime.ranks import Ranks


class Shard(Tensor):
    """What this rank holds of a vector, shape (share,), or of several as rows, shape (K, share).

    It does what is right on shares: arithmetic with numbers and among vectors, whose results are shards, and
    sums, norms and inner products, which are summed over the ranks and the same on each of them. Everything
    else raises an `InputError`: it would be the result for a part of a vector.

    `numel()` counts the numbers of the whole vector; `shape` and `nbytes` tell what is here.
    """

    dealt: Dealt

    def __repr__(self, **_: Any) -> str:  # type: ignore[override] # torch has an argument for itself
        held = f"{local(self).numel():,} of {self.numel():,} numbers"
        return f"Shard: {held} ({str(self.dtype)[6:]}, {self.device})"

    @property
    def data(self) -> Tensor:  # type: ignore[override] # an attribute there
        """The same numbers outside of any graph."""
        return self.detach()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.autograd.grad:
            return _differentiated(args, kwargs)
        if func.__name__ in ("__get__", "__set__"):  # of an attribute
            name = func.__self__.__name__
            compute = _ask if func.__name__ == "__get__" and name in METADATA else _refuse
        else:
            name = func.__name__.strip("_").removeprefix("linalg_")
            compute = _KINDS.get(name, _refuse)
        with torch._C.DisableTorchFunctionSubclass():
            return compute(func, name, args, kwargs)


def shard(values: Tensor, dealt: Dealt) -> Shard:
    """Mark what this rank holds of a vector, shape (share,) or (K, share)."""
    with torch._C.DisableTorchFunctionSubclass():
        found = values.as_subclass(Shard)
    found.dealt = dealt
    return found


def local(vector: Tensor) -> Tensor:
    """Return what this rank holds of a vector as a plain tensor: what is computed from it is of a part."""
    if not isinstance(vector, Shard):
        return vector
    with torch._C.DisableTorchFunctionSubclass():
        return vector.as_subclass(Tensor)


def alike(values: Tensor, like: Tensor) -> Tensor:
    """Return plain values as what `like` is: a shard of the same vectors, or what they are."""
    return shard(values, like.dealt) if isinstance(like, Shard) else values


def over_ranks(numbers: Tensor, like: Tensor) -> Tensor:
    """Add up what the ranks computed from their shares of vectors such as `like`; the same on each rank."""
    return gathered(numbers).sum(0) if isinstance(like, Shard) else numbers


def joint_norm(norms: Tensor, like: Tensor) -> Tensor:
    """Return the norms of vectors such as `like` from those of the ranks' shares."""
    return torch.linalg.vector_norm(gathered(norms), dim=0) if isinstance(like, Shard) else norms


def least(number: int, like: Tensor) -> int:
    """Return the least of the ranks' numbers, where vectors such as `like` are shards: all choose alike."""
    return min(objects(number)) if isinstance(like, Shard) else number


def greatest(number: int, like: Tensor) -> int:
    """Return the greatest of the ranks' numbers, likewise."""
    return -least(-number, like)


def peak(vector: Tensor) -> Tensor:
    """Return the entry of largest magnitude, shape (), on the vector's device."""
    low, high = torch.aminmax(local(vector))
    if isinstance(vector, Shard):
        low, high = gathered(low).min(), gathered(high).max()
    return torch.where(high >= -low, high, low)


def whole(part: Tensor) -> Tensor:
    """Return a parameter, or a direction's part, in its own shape, in the memory of every rank."""
    return part.dealt.whole(local(part)) if isinstance(part, Shard) else part


def share_of(full: Tensor, like: Tensor) -> Tensor:
    """Return a tensor of a parameter's numbers as what `like` is: of its shape, or this rank's share."""
    return shard(like.dealt.share_of(full), like.dealt) if isinstance(like, Shard) else full.view(like.shape)


def fill(vector: Tensor, draw: Callable[[int], Any], step: int) -> Tensor:
    """Fill a vector with numbers that are drawn for the whole of it, in order, and return it.

    All ranks draw all numbers and each keeps its own, so that they do not depend on how many ranks there are.

    Args:
        vector: shape (n,), or a share of it.
        draw: returns the next numbers, as an array of that length.
        step: how many are drawn at once.
    """
    here, places = local(vector), [(0, 0, vector.numel())]
    if isinstance(vector, Shard):
        here.zero_()
        places = vector.dealt.places()
    firsts = [first for first, _, _ in places]
    for begin in range(0, vector.numel(), step):
        end = min(begin + step, vector.numel())
        drawn = torch.from_numpy(draw(end - begin))
        for first, own, count in places[max(bisect_right(firsts, begin) - 1, 0) : bisect_right(firsts, end)]:
            low, high = max(begin, first), min(end, first + count)
            if low < high:
                here[own + low - first : own + high - first] = drawn[low - begin : high - begin]
    return vector


class Together(Ranks):
    """Ranks that hold shares of one model, and all evaluate the same batches."""

    def summed(self, tensor: Tensor) -> Tensor:
        """Return the first rank's sum: each rank has the whole sum, which may differ in its last digits."""
        return tensor.copy_(gathered(tensor)[0])

    @property
    def alone(self) -> Ranks:
        """These ranks: none of them can evaluate anything alone."""
        return self

    def need_same(self, weight: float, provenance: Mapping[str, str]) -> None:
        """Make sure that all ranks were given the same loss.

        Raises:
            InputError: they were not.
        """
        known = weight, {key: said for key, said in provenance.items() if not said.startswith(UNKNOWN)}
        if any(other != known for other in objects(known)):
            raise InputError(
                "the ranks of a sharded model must all be given the same batches and the same loss; use no "
                "DistributedSampler, and equal seeds"
            )


class ShardedSpace(ParamSpace):
    """The coordinates of a sharded model: vectors are `Shard`s."""

    sharded = True

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """View a vector as this rank's shares of the named tensors, shape (share,), or (K, share) of rows.

        Raises:
            InputError: it is not a vector of this model.
        """
        if not isinstance(vector, Shard) or vector.dealt.shapes != tuple(e.shape for e in self.entries):
            raise InputError(
                "a vector of a sharded model is made from its own: objective.theta, a gradient, a direction"
            )
        parts = torch.split(local(vector), vector.dealt.shares, -1)
        return {
            e.name: shard(part, replace(vector.dealt, shapes=(e.shape,)))
            for e, part in zip(self.entries, parts, strict=True)
        }

    split = views

    def flat(self, tensors: Iterable[Tensor]) -> Tensor:
        """Lay shares of tensors end to end that are given in the order of `entries`."""
        parts: list[Any] = [t if isinstance(t, Shard) else t.data for t in tensors]  # or a `Weight`
        shapes = tuple(shape for part in parts for shape in part.dealt.shapes)
        return shard(torch.cat([local(part) for part in parts]), replace(parts[0].dealt, shapes=shapes))


def _refuse(func: Any, name: str, args: Sequence[Any], kwargs: Any) -> Any:
    raise InputError(
        f"{name} is not available for a vector of a sharded model, of which each process holds a part"
    )


def _ask(func: Any, name: str, args: Sequence[Any], kwargs: Any) -> Any:
    return func(*args, **kwargs)


def _rows_held(func: Any, name: str, args: Sequence[Any], kwargs: Any) -> int:
    if args[0].dim() == 1:  # would be what this rank holds
        _refuse(func, name, args, kwargs)
    return int(args[0].shape[0])


def _count(func: Any, name: str, args: Sequence[Any], kwargs: Any) -> int:
    (vector,) = args
    return int(vector.dealt.numel * math.prod(vector.shape[:-1]))


def _elementwise(func: Any, name: str, args: Sequence[Any], kwargs: Any) -> Any:
    """Compute number by number, so that the zeros which fill a share up stay zeros."""
    tensors = [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor)]
    shards = [t for t in tensors if isinstance(t, Shard)]
    if name == "to" and not isinstance(args[0], Shard):  # the type and the device of a vector
        return args[0].to(shards[0].device, shards[0].dtype, **kwargs)
    vectors = sum(isinstance(arg, Shard) for arg in args)
    if (
        len({t.dealt for t in shards}) > 1
        or any(t.dim() for t in tensors if not isinstance(t, Shard))
        or (name in _OF_TWO and vectors < 2)
        or (name in _BY_NUMBERS and vectors > 1)
    ):
        _refuse(func, name, args, kwargs)
    found = func(*map(_plain, args), **{key: _plain(value) for key, value in kwargs.items()})
    if found.shape[-1:] != shards[0].shape[-1:]:
        _refuse(func, name, args, kwargs)
    if "empty" in name:
        found.zero_()
    target = kwargs.get("out", args[0] if func.__name__.endswith("_") else None)
    if isinstance(target, Shard) and found.data_ptr() == target.data_ptr() and found.shape == target.shape:
        return target
    return shard(found, shards[0].dealt)


def _rows(func: Any, name: str, args: Sequence[Any], kwargs: Any) -> Any:
    """Take rows apart, or put them together."""
    of = args[0] if name in ("cat", "stack") else args[:1]
    flat, more = {t.dim() for t in of} == {1}, args[1:]
    bare, rows = not more and not kwargs, bool(more) and isinstance(more[0], int | slice)
    allowed = {
        "getitem": more == (None,) if flat else rows,
        "setitem": not flat and rows and isinstance(more[-1], Shard),
        "reshape": flat and more == (-1,),
        "split": len(more) == 1 and kwargs in ({}, {"dim": 0}),
        "unbind": not flat and more == (0,),
        "stack": flat and bare,
        "cat": not flat and bare,
    }[name]
    if not allowed or any(not isinstance(t, Shard) or t.dealt != of[0].dealt for t in of):
        _refuse(func, name, args, kwargs)
    found = func(*map(_plain, args), **kwargs)
    if isinstance(found, Tensor):
        return shard(found, of[0].dealt)
    return found if found is None else tuple(shard(t, of[0].dealt) for t in found)


def _reduced(func: Any, name: str, args: Sequence[Any], kwargs: Any) -> Any:
    """Compute one number of whole vectors."""
    two = name in ("dot", "matmul", "equal")
    if (
        any(value not in _USUAL.get(key, (value,)) for key, value in kwargs.items())
        or set(kwargs) - {*_USUAL, "dtype"}
        or len(args) != 1 + two
        or (two and not all(isinstance(v, Shard) and v.dim() == 1 for v in args))
    ):
        _refuse(func, name, args, kwargs)
    found = func(*map(_plain, args), **kwargs)
    if name == "equal":
        return all(objects(found))
    if found.requires_grad:
        _refuse(func, name, args, kwargs)
    if name == "any":
        return gathered(found.to(torch.uint8)).any()
    of_ranks = gathered(found)
    return torch.linalg.vector_norm(of_ranks) if "norm" in name else of_ranks.sum(0)


METADATA = frozenset(["shape", "dtype", "device", "requires_grad", "grad_fn", "is_sparse", "nbytes"])
"""Attributes that tell no number of a tensor."""
_KINDS: dict[str, Any] = {
    "numel": _count,
    "len": _rows_held,
    **dict.fromkeys(["requires_grad", "dim", "is_floating_point", "element_size", "hash"], _ask),
    **dict.fromkeys(["add", "radd", "iadd", "sub", "rsub", "isub", "mul", "rmul", "imul"], _elementwise),
    **dict.fromkeys(["div", "truediv", "itruediv", "neg", "abs", "square", "detach", "clone"], _elementwise),
    **dict.fromkeys(["to", "double", "float", "cpu", "contiguous", "copy", "zeros_like"], _elementwise),
    **dict.fromkeys(["empty_like", "new_empty", "new_zeros"], _elementwise),
    **dict.fromkeys(["getitem", "setitem", "unbind", "split", "cat", "stack", "reshape"], _rows),
    **dict.fromkeys(["norm", "vector_norm", "sum", "dot", "matmul", "any", "equal"], _reduced),
}
_OF_TWO = frozenset(["add", "radd", "iadd", "sub", "rsub", "isub", "copy"])
"""With a number they would change the zeros that fill a share up."""
_BY_NUMBERS = frozenset(["div", "truediv", "itruediv"])
_USUAL: dict[str, Any] = {"p": (2, "fro"), "ord": (2,), "dim": (None,), "keepdim": (False,)}
"""Arguments of a reduction to one number."""


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple) and any(isinstance(v, Shard) for v in value):
        return type(value)(map(_plain, value))
    return local(value) if isinstance(value, Shard) else value


def _differentiated(args: Sequence[Any], kwargs: Any) -> tuple[Tensor, ...]:
    """Return derivatives as what they are taken by: those by a shard are shards."""
    inputs = args[1] if len(args) > 1 else kwargs["inputs"]
    with torch._C.DisableTorchFunctionSubclass(), regathering():
        found = torch.autograd.grad(*args, **kwargs)
    return tuple(alike(local(t), of) for t, of in zip(found, inputs, strict=True))
