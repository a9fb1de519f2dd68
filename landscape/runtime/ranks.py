"""The ranks of one command: the processes that `torchrun` started, or this one alone.

Alone, nothing here imports `torch.distributed` or costs anything. Ranks that were joined run the same
program: a call below that needs several of them is made by all, in the same order.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
STARTED = "TORCHELASTIC_RUN_ID"
"""Torchrun's own mark: other launchers set WORLD_SIZE too, for processes that do not expect to be joined."""


class Queue:
    """The numbers 0 to `total` - 1, dealt to whichever rank asks next."""

    def __init__(self, total: int, store: Any, key: str) -> None:
        self.total = total
        self._store = store
        self._key = key
        self._dealt = 0

    @property
    def left(self) -> int:
        """How many numbers nobody has taken yet."""
        return max(0, self.total - self._add(0))

    def take(self, most: int) -> range:
        """Return the next numbers, `most` of them or what is left."""
        end = self._add(most)
        return range(min(end - most, self.total), min(end, self.total))

    def _add(self, number: int) -> int:
        if self._store is not None:
            return int(self._store.add(self._key, number))
        self._dealt += number
        return self._dealt


@dataclass(frozen=True)
class Ranks:
    """The processes that share one command.

    Attributes:
        rank: the number of this one, from 0.
        size: how many there are.
        local: the number of this one on its machine, and the place of its GPU.
        store: the process group's; None if there is but one process.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    store: Any = None
    _queues: Iterator[int] = field(default_factory=count, repr=False)

    @property
    def first(self) -> bool:
        """Whether this is the rank that prints, and writes results."""
        return self.rank == 0

    @property
    def alone(self) -> "Ranks":
        """Those that take part where this rank evaluates something by itself."""
        return ALONE

    def need_same(self, weight: float, provenance: Mapping[str, str]) -> None:
        """Make sure that ranks which evaluate the same loss were given the same; one alone was."""

    def share(self, total: int, rank: int | None = None) -> range:
        """Return the part of `total` numbers that is a rank's, or this one's: contiguous, in order, even."""
        rank = self.rank if rank is None else rank
        return range(total * rank // self.size, total * (rank + 1) // self.size)

    def summed(self, tensor: "Tensor") -> "Tensor":
        """Add up the ranks' tensors of one shape, in place, and return the sum: one all-reduce."""
        if self.size > 1:
            import torch.distributed as dist

            dist.all_reduce(tensor)
        return tensor

    def largest(self, number: int) -> int:
        """Return the largest of the ranks' numbers."""
        if self.size == 1:
            return number
        import torch
        import torch.distributed as dist

        found = torch.tensor(number)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def gathered(self, value: T) -> list[T]:
        """Return every rank's value (any small object), in the order of ranks. Also a barrier."""
        if self.size == 1:
            return [value]
        from landscape.runtime.dealing import objects

        return objects(value)

    def stacked(self, tensor: "Tensor") -> "Tensor":
        """Return the ranks' tensors of one shape along a new first axis: one all-gather. Shape (size, …)."""
        if self.size == 1:
            return tensor[None]
        from landscape.runtime.dealing import gathered

        return gathered(tensor)

    def exchanged(self, tensor: "Tensor", sent: list[int], received: list[int]) -> "Tensor":
        """Send each rank its rows of a tensor, and return what the others sent: one all-to-all.

        Args:
            tensor: shape (sum(sent), …); its rows are in the order of the ranks that they go to.
            sent, received: how many rows go to each rank, and how many come from it.
        """
        if self.size == 1:
            return tensor
        import torch.distributed as dist

        found = tensor.new_empty(sum(received), *tensor.shape[1:])
        dist.all_to_all_single(found, tensor.contiguous(), received, sent)
        return found

    def joined(self, tensor: "Tensor") -> "Tensor":
        """Return the ranks' rows of a tensor in their order, in the first's memory; the others get theirs."""
        import torch
        import torch.distributed as dist

        rows, lengths = tensor.cpu(), self.gathered(len(tensor))
        if not self.first:
            dist.send(rows, 0)
            return rows
        found = rows.new_empty(sum(lengths), *rows.shape[1:])
        for rank, part in enumerate(torch.split(found, lengths)):
            if rank:
                dist.recv(part, rank)
            else:
                part.copy_(rows)
        return found

    def queue(self, total: int) -> Queue:
        """Return a queue of `total` numbers that the ranks work off together."""
        return Queue(total, self.store, f"landscape/queue/{next(self._queues)}")

    def speaks(self) -> bool:
        """Tell whether this rank is to report an error, which only one may have met: the first that asks."""
        return self.store is None or int(self.store.add("landscape/error", 1)) == 1


ALONE = Ranks()
_ranks = ALONE


def ranks() -> Ranks:
    """Return the ranks that were joined, or this process alone."""
    return _ranks


def join() -> None:
    """Join the processes that torchrun started, if it did and they have not: gloo on CPUs, nccl on GPUs."""
    global _ranks  # noqa: PLW0603  one process is in one group
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1 or STARTED not in os.environ
    if alone or _ranks.size > 1:
        return
    from datetime import timedelta

    import torch
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://"))
    if os.environ["GROUP_WORLD_SIZE"] == "1":  # the store of one machine outlives a restart of its ranks
        store = PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
    gpus = torch.cuda.is_available() and dist.is_nccl_available()
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if gpus else "gloo",
        store=store,
        rank=rank,
        world_size=size,
        timeout=timedelta(days=7),  # a rank that draws or reads is waited for; torchrun sees one that died
    )
    _ranks = Ranks(rank, size, int(os.environ["LOCAL_RANK"]), store)


def is_writer(path: Path) -> bool:
    """Tell whether this process writes a file, and no other of its process group: the first that asks.

    The group may be the user's own, as that of `DistributedDataParallel`. No other process is waited for.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return True
    store, rank = dist.distributed_c10d._get_default_store(), str(dist.get_rank())
    found: bytes = store.compare_set(f"landscape/writer/{path.absolute()}", "", rank)
    return found.decode() == rank


def leave() -> None:
    """Part, once all ranks are done. After an error a rank just ends, and torchrun ends the others."""
    global _ranks  # noqa: PLW0603  as in `join`
    if _ranks.size > 1:
        import torch.distributed as dist

        _ranks.gathered(None)
        dist.destroy_process_group()
        _ranks = ALONE


def parted() -> bool:
    """Tell whether this was one of several ranks, which have all come to their end."""
    return _ranks is ALONE and STARTED in os.environ and int(os.environ["WORLD_SIZE"]) > 1


def processes_here() -> int:
    """Return how many of the ranks share this machine's memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if _ranks.size > 1 else 1
