"""A model's parameters as one vector, and what a landscape needs to know of their structure."""

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from landscape.errors import InputError

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


@dataclass(frozen=True)
class Entry:
    """One parameter tensor.

    Attributes:
        name: as in `named_parameters`; a tied weight has one entry, under its first name.
        shape: of the tensor.
        group: `embedding`, `attention`, `ffn`, `norm` or `other`.
        filter_axis: the axis that counts filters, or None for a tensor that has none (a bias, a norm's
            scale). A filter is everything at one index of it: an output unit of a linear or convolution
            layer, an item of an embedding (Li et al. 2018, section 4).
    """

    name: str
    shape: torch.Size
    group: str
    filter_axis: int | None


class ParamSpace:
    """The coordinates of a landscape: which tensors take part, and how they lie in one vector.

    Args:
        model: its unique parameters, in `named_parameters` order.
        include, exclude: name patterns (`*` and `?`, as in a shell). A parameter takes part if it matches one
            of `include` and none of `exclude`; all others are held still.

    Raises:
        InputError: a pattern matches no parameter, no parameter takes part, or those that do are not of one
            floating dtype on one device.

    Attributes:
        entries: the tensors that take part, in order.
        theta: their current values, shape (numel,).
        include, exclude: as given.
    """

    def __init__(
        self, model: nn.Module, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()
    ) -> None:
        self.include, self.exclude = tuple(include), tuple(exclude)
        named = dict(model.named_parameters())
        for pattern in (*include, *exclude):
            if not any(fnmatchcase(name, pattern) for name in named):
                raise InputError(f"no parameter matches {pattern!r}; parameters: {_some(named)}")
        chosen = [name for name in named if _matches(name, include) and not _matches(name, exclude)]
        if not chosen:
            raise InputError("every parameter is excluded; at least one must take part")
        tensors = [named[name].detach() for name in chosen]
        kinds = {(t.dtype, t.device) for t in tensors}
        if len(kinds) > 1 or not tensors[0].is_floating_point():
            raise InputError(
                f"parameters must be of one floating dtype on one device, found {_some(map(str, kinds))}"
            )

        owners = _owners(model)
        self.entries = tuple(
            Entry(name, t.shape, _group(name, owners), _filter_axis(name, t, owners))
            for name, t in zip(chosen, tensors, strict=True)
        )
        self._sizes = [t.numel() for t in tensors]
        self.theta = torch.cat([t.flatten() for t in tensors])

    @property
    def numel(self) -> int:
        """Number of coordinates that take part."""
        return self.theta.numel()

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """View a vector of shape (numel,) as the named tensors that lie end to end in it.

        For rows of vectors, shape (K, numel), each tensor has K in front of its own shape.
        """
        parts = torch.split(vector, self._sizes, -1)
        ahead = vector.shape[:-1]
        return {e.name: part.view((*ahead, *e.shape)) for e, part in zip(self.entries, parts, strict=True)}

    def restrict(self, names: Collection[str]) -> "ParamSpace":
        """Return the space of some tensors only, by their names; the others stand still."""
        other, parts = copy.copy(self), self.split(self.theta)
        other.entries = tuple(entry for entry in self.entries if entry.name in names)
        other.include, other.exclude = tuple(entry.name for entry in other.entries), ()
        other._sizes = [entry.shape.numel() for entry in other.entries]
        other.theta = other.join(parts)
        return other

    def at(self, theta: Tensor) -> "ParamSpace":
        """Return the same space at another θ, shape (numel,)."""
        other = copy.copy(self)
        other.theta = theta
        return other

    def in_float64(self) -> "ParamSpace":
        """Return the same space with θ in float64."""
        return self.at(self.theta.double())

    def of_rows(self, rows: Mapping[str, Tensor]) -> "tuple[ParamSpace, Tensor]":
        """Return the space with some rows of some tensors left out, and the places in θ of what is left.

        Args:
            rows: by name, which rows stay. Bool, shape (rows,).
        """
        stays = torch.ones(self.numel, dtype=torch.bool, device=self.theta.device)
        parts = self.split(stays)
        for name, kept in rows.items():
            parts[name][~kept] = False
        other = copy.copy(self)
        other.entries = tuple(
            replace(e, shape=torch.Size([int(rows[e.name].sum()), *e.shape[1:]])) if e.name in rows else e
            for e in self.entries
        )
        other._sizes = [e.shape.numel() for e in other.entries]
        places = stays.nonzero().squeeze(1)
        other.theta = self.theta[places]
        return other, places

    def join(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Lay named tensors end to end: the inverse of `split`. Shape (numel,)."""
        return self.flat(tensors[e.name] for e in self.entries)

    def flat(self, tensors: Iterable[Tensor]) -> Tensor:
        """Lay tensors end to end that are given in the order of `entries`. Shape (numel,)."""
        return torch.cat([tensor.reshape(-1) for tensor in tensors])

    @property
    def groups(self) -> dict[str, int]:
        """Coordinates in each group."""
        counts: dict[str, int] = {}
        for entry, size in zip(self.entries, self._sizes, strict=True):
            counts[entry.group] = counts.get(entry.group, 0) + size
        return counts


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _owners(model: nn.Module) -> dict[str, nn.Module]:
    """Map each parameter's name to the module that holds it."""
    return {
        f"{prefix}.{name}" if prefix else name: module
        for prefix, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
    }


def _group(name: str, owners: Mapping[str, nn.Module]) -> str:
    owner = owners[name]
    if isinstance(owner, nn.Embedding):
        return "embedding"
    if isinstance(owner, _NORMS):
        return "norm"
    path = name.lower().split(".")[:-1]
    if any("attn" in part or "attention" in part for part in path):
        return "attention"
    if any(word in part for part in path for word in ("ffn", "mlp", "feed_forward", "feedforward")):
        return "ffn"
    return "other"


def _filter_axis(name: str, tensor: Tensor, owners: Mapping[str, nn.Module]) -> int | None:
    if tensor.dim() < 2 or isinstance(owners[name], _NORMS):
        return None
    return 1 if isinstance(owners[name], _TRANSPOSED) else 0
