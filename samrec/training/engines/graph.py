"""A training step as one CUDA graph."""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from landscape.errors import first_line
from samrec.data.packing import Batch

Step = Callable[[Sequence[Batch]], Tensor]


class Captured:
    """A step that is recorded once and then replayed, so that the host launches one graph, not 600 kernels.

    The first calls run as they are, on a stream of their own (allocators and libraries settle there). The
    next one is recorded, with inputs of its own, into which every later call copies its batches. A call
    whose shapes are not the recorded ones runs as it is. Where recording fails, a warning says why, and
    all calls run as they are.

    Args:
        step: what to record. It must not wait for the device, nor depend on anything on the host that
            changes from call to call; it returns one tensor.
    """

    WARM_UP = 3

    def __init__(self, step: Step) -> None:
        self.step = step
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Tensor] = []
        self.output = torch.empty(0)

    def __call__(self, batches: Sequence[Batch]) -> Tensor:
        given = [tensor for batch in batches for tensor in batch.tensors()]
        if self.graph is not None and [t.shape for t in given] == [t.shape for t in self.inputs]:
            for own, new in zip(self.inputs, given, strict=True):
                own.copy_(new)
            self.graph.replay()
            return self.output.clone()  # the next replay overwrites it
        self.calls += 1
        return self._record(batches) if self.calls == self.WARM_UP + 1 else self._aside(batches)

    def _aside(self, batches: Sequence[Batch]) -> Tensor:
        stream, current = _stream(batches), torch.cuda.current_stream(_device(batches))
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            result = self.step(batches)
        current.wait_stream(stream)
        return result

    def _record(self, batches: Sequence[Batch]) -> Tensor:
        own = [batch.filled([tensor.clone() for tensor in batch.tensors()]) for batch in batches]
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=_stream(batches)):
                self.output = self.step(own)
        except RuntimeError as error:
            warnings.warn(f"the step runs without a CUDA graph: {first_line(error)}", stacklevel=2)
            return self._aside(batches)
        self.graph, self.inputs = graph, [tensor for batch in own for tensor in batch.tensors()]
        return self(batches)


def _device(batches: Sequence[Batch]) -> torch.device:
    return batches[0].targets.device


def _stream(batches: Sequence[Batch]) -> torch.cuda.Stream:
    """Return a stream of the device that computes, which is not always the current one, as cuda:1 is not."""
    return torch.cuda.Stream(_device(batches))  # type: ignore[no-untyped-call] # torch's
