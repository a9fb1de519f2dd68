"""Batches that do not fit into memory: read anew wherever they are needed, and checked to be the same."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from queue import SimpleQueue
from threading import Thread
from typing import Any, overload

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from landscape.errors import InputError
from landscape.objective.batches import HALF, MANY, kept, mapped, need_batches, reading, recorded, tensors_of
from landscape.objective.identity import UNKNOWN, batches_digest

Read = Callable[[range], Iterator[Any]]
_END = object()


class Streamed(Sequence[Any]):
    """Batches as `streamed` makes them; slices read as little as their source allows."""

    def __init__(self, read: Read, count: int) -> None:
        self._read, self._span = read, range(count)
        self._like: Tensor | None = None
        self._change: Callable[[Any], Any] | None = None
        self._digests: dict[int, str] = {}  # all slices share it

    def beside(self, like: Tensor) -> "Streamed":
        """Return the same, moved to the device of `like`; half precision becomes its dtype."""
        return self._with(_like=like)

    def changed(self, change: Callable[[Any], Any]) -> "Streamed":
        """Return the same, each batch changed after it was read and checked, and after earlier changes."""
        before = self._change
        return self._with(_change=(lambda batch: change(before(batch))) if before else change)

    def __len__(self) -> int:
        return len(self._span)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> "Streamed": ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self._with(_span=self._span[index])
        place = self._span[index]
        return next(self._checked(range(place, place + 1)))

    def __iter__(self) -> Iterator[Any]:
        """Yield all batches; a thread reads and moves the next one while the last is used."""
        return _ahead(self._checked(self._span))

    def _with(self, **changed: Any) -> "Streamed":
        other = copy.copy(self)
        vars(other).update(changed)
        return other

    def _checked(self, span: range) -> Iterator[Any]:
        """Read batches, where they must be what they were when each was first read.

        Raises:
            InputError: one is not, or is missing.
        """
        found = self._read(span)
        for number in span:
            batch = next(found, _END)
            digest = "" if batch is _END else _digest(batch)
            if self._digests.setdefault(number, digest) != digest or batch is _END:
                raise InputError(
                    f"batch {number} is not what it was when it was first read; turn off shuffling and "
                    "random augmentation, or keep some batches: list(itertools.islice(loader, 100))"
                )
            batch = mapped(batch, self._moved)
            yield self._change(batch) if self._change else batch
            del batch

    def _moved(self, tensor: Tensor) -> Tensor:
        tensor = recorded(tensor)
        if self._like is None:
            return tensor
        if self._like.device.type == "cuda" and tensor.device.type == "cpu":
            tensor = tensor.pin_memory()
        dtype = self._like.dtype if tensor.dtype in HALF else tensor.dtype
        return tensor.to(self._like.device, dtype, non_blocking=True)


def streamed(batches: Iterable[Any]) -> Streamed:
    """Return batches for an `Objective` that are read anew at each evaluation, and never kept.

    While one is used, a thread reads the next and moves it to the model's device; with the one before, three
    are in memory at a time. Each is known by the SHA-256 of its values when it was first read. Results equal
    those of a list of the same batches.

        objective = ll.supervised(model, ll.streamed(loader), nn.CrossEntropyLoss())

    Args:
        batches: a `DataLoader`, whose workers are used and whose order is drawn once; a sequence that gives a
            batch for an index; or anything that gives the same batches each time it is iterated.

    Raises:
        InputError: they are an iterator, which can be read only once; a data set of single examples; or do
            not end. Where they are used: a batch differs from what it was.
    """
    if isinstance(batches, DataLoader) and not isinstance(batches.dataset, IterableDataset):
        groups = list(batches.batch_sampler or batches.sampler)
        return Streamed(lambda span: _loaded(batches, [groups[i] for i in span]), len(groups))
    need_batches(batches)
    if isinstance(batches, Sequence) and not isinstance(batches, str):
        return Streamed(lambda span: (batches[i] for i in span), len(batches))
    try:
        once = iter(batches) is batches
    except TypeError:
        once = True
    if once:
        raise InputError(
            f"a {type(batches).__name__} cannot be read more than once; give streamed a DataLoader, or a list"
        )
    count = 0
    with reading(batches) as advance:
        for _ in islice(iter(batches), MANY + 1):
            count += 1
            advance()
    if count > MANY:
        raise InputError(
            f"the batches do not end after {MANY:,}; freeze some: list(itertools.islice(…, 100))"
        )

    def read(span: range) -> Iterator[Any]:
        return islice(iter(batches), span.start, span.stop, span.step)

    return Streamed(read, count)


def placed(batches: Iterable[Any], like: Tensor) -> Sequence[Any]:
    """Return batches on the device of `like`: all of them at once (`kept`), or each when it is read.

    Raises:
        InputError: they are not batches, or do not end.
    """
    return batches.beside(like) if isinstance(batches, Streamed) else kept(batches, like)


def changed(batches: Sequence[Any], change: Callable[[Any], Any]) -> Sequence[Any]:
    """Return batches changed one by one: now, or each when it is read."""
    return batches.changed(change) if isinstance(batches, Streamed) else [change(batch) for batch in batches]


def _loaded(loader: DataLoader[Any], groups: list[Any]) -> Iterator[Any]:
    """Read groups of examples as a loader does; a single one without starting its workers."""
    workers = loader.num_workers if len(groups) > 1 else 0
    of_workers: dict[str, Any] = {
        "num_workers": workers,
        "worker_init_fn": loader.worker_init_fn,
        "multiprocessing_context": loader.multiprocessing_context,
        "prefetch_factor": loader.prefetch_factor,
        "timeout": loader.timeout,
    }
    sampler = "sampler" if loader.batch_sampler is None else "batch_sampler"
    shape: dict[str, Any] = {sampler: groups} | ({"batch_size": None} if sampler == "sampler" else {})
    draws = torch.Generator()  # so that workers' seeds are not taken from the user's random numbers
    draws.seed()  # and differ, so that random augmentation shows
    return iter(
        DataLoader(
            loader.dataset,
            collate_fn=loader.collate_fn,
            generator=draws,
            **shape,
            **(of_workers if workers else {}),
        )
    )


def _ahead(items: Iterator[Any]) -> Iterator[Any]:
    """Yield what an iterator does; a thread takes the next while the last is used.

    The thread is none of `concurrent.futures`: in a child of such a one, as a loader's worker is that starts
    there, Python joins the thread that it runs in, and the child fails at its end.
    """
    asked: SimpleQueue[bool] = SimpleQueue()
    found: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def take() -> None:
        while asked.get():
            try:
                found.put((next(items, _END), None))
            except BaseException as error:  # raised where the item is waited for
                found.put((_END, error))

    reader = Thread(target=take, daemon=True)
    reader.start()
    try:
        asked.put(True)
        while True:
            item, error = found.get()
            if error is not None:
                raise error
            if item is _END:
                return
            asked.put(True)
            yield item
            del item
    finally:
        asked.put(False)
        reader.join()


def _digest(batch: Any) -> str:
    digest = batches_digest([batch])
    return batches_digest([tensors_of(batch)]) if digest.startswith(UNKNOWN) else digest
