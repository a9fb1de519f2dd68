"""A model's parameters as one vector, and what a landscape needs to know of their structure."""

import copy
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from landscape.errors import InputError
from landscape.objective.structure import Entry, Grouping, blocks_of, filter_axis_of, group_of, owners
from landscape.runtime.arguments import Names, checks_arguments
from landscape.runtime.devices import need_float64


class ParamSpace:
    """The coordinates of a landscape: which tensors take part, and how they lie in one vector.

    Args:
        model: its unique parameters, in `named_parameters` order.
        include, exclude: names, or patterns of names (`*` and `?`, as in a shell; a parameter's name is
            not a pattern). A parameter takes part if it matches one of `include` and none of `exclude`; all
            others are held fixed.
        held: names of further parameters that are held fixed.
        group: names the group of a parameter, from its name and the module that holds it, in place of
            `landscape.objective.structure.group_of`.
        filter_axes: by name or pattern, the axis that counts a parameter's filters, or None for one without;
            for layers whose outputs do not lie where those of torch's lie.

    Raises:
        InputError: the model has no parameters, a pattern matches none of them, none takes part, those that
            do are not of one floating dtype on one device, which has float64, or have no values, or a tensor
            has no such axis.

    Attributes:
        sharded: whether vectors are shares of the ranks', see `landscape.objective.shards`.
        entries: the tensors that take part, in order.
        theta: their current values, shape (numel,).
        include, exclude: as given.
    """

    sharded = False

    @checks_arguments
    def __init__(
        self,
        model: nn.Module,
        include: Names = ("*",),
        exclude: Names = (),
        *,
        held: Collection[str] = (),
        group: Grouping | None = None,
        filter_axes: Mapping[str, int | None] | None = None,
    ) -> None:
        self.include, self.exclude = tuple(include), tuple(exclude)
        named = dict(model.named_parameters())
        if not named:
            raise InputError(
                f"the model ({type(model).__name__}) has no parameters, so its loss is one number"
            )
        matching = {p: _matching(p, named) for p in (*include, *exclude, *(filter_axes or ()))}
        still = set(held).union(*(matching[pattern] for pattern in exclude))
        moving = set[str]().union(*(matching[pattern] for pattern in include)) - still
        chosen = [name for name in named if name in moving]
        if not chosen:
            raise InputError("every parameter is excluded; at least one must take part")
        tensors = [named[name].detach() for name in chosen]
        kinds = {(t.dtype, t.device) for t in tensors}
        if len(kinds) > 1 or not tensors[0].is_floating_point():
            said = f"parameters must be of one floating dtype on one device, found {_some(map(str, kinds))}"
            if any(t.is_complex() for t in tensors):
                said += "; keep complex ones as pairs, torch.view_as_real, or exclude them"
            raise InputError(said)

        if tensors[0].is_meta:
            raise InputError(
                f"{chosen[0]} is on the meta device and has no values; load them first: "
                'model.to_empty(device="cpu"), then model.load_state_dict'
            )
        need_float64(tensors[0].device)
        holders = owners(model)
        axes = {name: axis for p, axis in (filter_axes or {}).items() for name in matching[p]}
        self.entries = tuple(
            Entry(
                name,
                t.shape,
                group(name, holders[name]) if group else group_of(name, holders),
                axes.get(name, filter_axis_of(name, t, holders[name])),
                blocks=1 if name in axes else blocks_of(holders[name]) if t.dim() > 1 else 1,
            )
            for name, t in zip(chosen, tensors, strict=True)
        )
        for entry in self.entries:
            if entry.filter_axis is not None and not 0 <= entry.filter_axis < len(entry.shape):
                said = f"{entry.name} of shape {tuple(entry.shape)}"
                raise InputError(f"{said} has no axis {entry.filter_axis} for its filters")
        self._sizes = [t.numel() for t in tensors]
        self.theta = self.flat(tensors)

    def __repr__(self) -> str:
        count = len(self.entries)
        tensors = f"{count} tensor{'s'[: count != 1]}"
        return f"ParamSpace: {self.numel:,} parameters in {tensors} ({_some(self.groups)})"

    @property
    def numel(self) -> int:
        """Number of coordinates that take part."""
        return self.theta.numel()

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the named tensors that lie end to end in a vector of shape (numel,): views, to be read.

        For rows of vectors, shape (K, numel), each tensor has K in front of its own shape. Pairs are copied
        where they begin at an odd place: there, `torch.view_as_complex` would refuse them.
        """
        return {name: _even(part) for name, part in self.views(vector).items()}

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the same as `split`, as views alone, to be written to."""
        parts = torch.split(vector, self._sizes, -1)
        ahead = vector.shape[:-1]
        return {e.name: part.view((*ahead, *e.shape)) for e, part in zip(self.entries, parts, strict=True)}

    @checks_arguments
    def named(self, names: Names | None, group: str | None) -> list[str]:
        """Return the names of tensors that take part: some of them, or those of a group.

        Raises:
            InputError: none has such a name or is of the group, or not exactly one of the two is given.
        """
        if (names is None) == (group is None):
            raise InputError("give restrict names or a group, not both")
        known = {entry.name: entry.group for entry in self.entries}
        chosen = [name for name in known if known[name] == group] if names is None else list(names)
        if not chosen and names is None:
            raise InputError(f"no parameter group {group!r}; groups: {', '.join(self.groups)}")
        if not chosen or (unknown := [name for name in chosen if name not in known]):
            wrong = f"no parameter {unknown[0]!r} takes part" if chosen else "no names are given"
            raise InputError(f"{wrong}; parameters: {_some(known)}")
        return chosen

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
        parts = self.views(stays)
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


def _even(part: Tensor) -> Tensor:
    if part.shape[-1:] != (2,) or not any(n % 2 for n in (part.storage_offset(), *part.stride()[:-1])):
        return part
    return part.clone(memory_format=torch.contiguous_format)


def _matching(pattern: str, names: Collection[str]) -> list[str]:
    """Return the name that a pattern is, or those that it matches.

    Raises:
        InputError: there are none.
    """
    found = [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise InputError(f"no parameter matches {pattern!r}; parameters: {_some(names)}")
    return found


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
