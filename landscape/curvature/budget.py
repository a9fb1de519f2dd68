"""Where a Krylov basis lies and how long it may be, so that a solver keeps within a given memory."""

import copy
import re
import shutil
import tempfile
from typing import NamedTuple

import torch
from torch import Tensor

from landscape.curvature.basis import COLUMNS, MIXED, Place, rows_at_once
from landscape.curvature.copies import LEAST
from landscape.curvature.linear import LinearOperator
from landscape.curvature.matrix import Operator
from landscape.errors import InputError
from landscape.objective.shards import alike, greatest, least, local
from landscape.runtime.allocations import peak
from landscape.runtime.arguments import said
from landscape.runtime.devices import free_memory, gigabytes, need_room

LONGEST = 300  # vectors; past it, the small dense problem of each step begins to cost
WORKING = 5  # vectors beside the basis, the found ones and a product: the start, and a step's own
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([kMGT]?)(i?)B?", re.IGNORECASE)


class Plan(NamedTuple):
    """How a basis is kept: see `Basis` for the place, and the maximum number of vectors."""

    place: Place
    capacity: int


def bytes_of(memory: int | str) -> int:
    """Return a number of bytes, given as one or as a text such as "8 GB", "500 MiB".

    Raises:
        InputError: it is neither, or not positive.
    """
    if isinstance(memory, str) and (found := _SIZE.fullmatch(memory.strip())):
        number, prefix, binary = found.groups()
        size = float(number) * (1024 if binary else 1000) ** " kmgt".index(prefix.lower() or " ")
        memory = int(min(size, 2.0**63))
    if isinstance(memory, bool) or not isinstance(memory, int) or not 0 < memory < 2**63:
        raise InputError(f'memory is {said(memory)}; it must be a number of bytes or a text such as "8 GB"')
    return memory


def for_graphs(memory: int | str | None) -> int | None:
    """Return how much of a budget graphs may take that are kept, with a product of one."""
    return None if memory is None else bytes_of(memory) // 4


def length(like: Tensor, wanted: int, block: int, basis: int | None) -> int:
    """Return how many vectors a basis may have without a budget.

    Args:
        like: any vector of their kind.
        wanted: number of eigenpairs.
        block: number of vectors multiplied at once.
        basis: maximum number of vectors, by default what half of the free memory holds; raised to the least
            that restarts need.
    """
    needed = _fewest(wanted, block)
    if basis is None:
        room = least(free_memory(like.device) // 2, like)
        basis = min(LONGEST + needed, int(room / _bytes(like)))
    return min(like.numel(), max(basis, needed))


def check_room(like: Tensor, wanted: int, block: int, setting: str) -> None:
    """Make sure that memory holds the least that a basis for `wanted` eigenpairs needs.

    Raises:
        InputError: it does not.
    """
    need_room(min(like.numel(), _fewest(wanted, block)), like, setting)


def _fewest(wanted: int, block: int) -> int:
    return 2 * wanted + 3 * block


def _bytes(like: Tensor) -> int:
    return like.element_size() * like.shape[-1]


def planned(
    operator: LinearOperator, like: Tensor, memory: int, wanted: int, block: int, basis: int | None
) -> Plan:
    """Choose the place and the length of a basis.

    A product is made to see what it takes; what the budget leaves is for the basis. If that holds fewer
    vectors than restarts need to converge well, the basis goes to the host's memory, or from there to a
    temporary file.

    Args:
        memory: bytes that kept graphs and all new tensors on the operator's device may take together.
        like, wanted, block, basis: as for `length`.

    Raises:
        InputError: the budget is too small for a product and the eigenvectors.
    """
    n, vector = like.shape[-1], _bytes(like)
    longest, needed = length(like, wanted, block, basis), min(like.numel(), _fewest(wanted, block))
    rows = rows_at_once(like)
    kept = operator.held if isinstance(operator, Operator) else 0
    fixed = kept + greatest(_peak(operator, like), like)
    fixed += (wanted + block * WORKING) * vector
    fixed += 16 * rows * min(n, COLUMNS) + 2 * like.element_size() * min(MIXED, n * longest)  # pieces
    if fixed > memory:
        raise InputError(
            f"memory is {gigabytes(memory)}; a product and {wanted} eigenvectors take {gigabytes(fixed)}"
        )
    spare = 2 * rows + LEAST  # two blocks that are not full, and the search for copies
    rooms: dict[Place, int] = {"device": memory - fixed}
    if like.device.type != "cpu":
        rooms["host"] = free_memory(torch.device("cpu")) // 2
    rooms["file"] = shutil.disk_usage(tempfile.gettempdir()).free // 2
    rooms = {place: least(room, like) for place, room in rooms.items()}
    plans = [Plan(place, min(longest, room // vector - spare)) for place, room in rooms.items()]
    for plan in plans:
        if plan.capacity >= min(longest, 2 * needed):
            # every step reads the whole file, and restarts cost hardly a product
            short = plan.place == "file" and basis is None
            return plan._replace(capacity=min(longest, 2 * needed)) if short else plan
    most = max(plans, key=lambda plan: plan.capacity)
    if most.capacity < needed:
        missing = f"a basis of {needed} vectors takes {gigabytes((needed + spare) * vector)} more"
        raise InputError(f"memory is {gigabytes(memory)}; {missing}, and no disk has room for it")
    return most


def _peak(operator: LinearOperator, like: Tensor) -> int:
    """Return the most bytes of new tensors that a product holds at once.

    On a CPU they are counted in one thread, since nothing is seen of others, and taken for each of them.
    """
    vector, device = alike(torch.ones_like(local(like)), like), like.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        operator(vector)
        return torch.cuda.max_memory_allocated(device) - before
    threads = 1
    if isinstance(operator, Operator):
        threads, operator = operator.threads, copy.copy(operator)
        operator.threads = 1
    return threads * peak(lambda: operator(vector))[1]
