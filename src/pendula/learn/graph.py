"""Work on a GPU that is captured once in a CUDA graph and replayed: one launch instead of hundreds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pendula._check import BackendError

WARM_UP = 3
"""Calls before a capture: kernels are compiled in them, libraries start, an optimiser makes its state."""

WAITS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal")
"""Operators whose result the processor looks at: it waits for the GPU, which can't be captured."""

Result = TypeVar("Result")


class Capture(Protocol):
    """How work is captured."""

    def warm_up(self, work: Callable[[], Result]) -> Result:
        """Do the work as it will be captured."""

    def record(self, work: Callable[[], Result]) -> tuple[Result, Callable[[], None]]:
        """What the work gives, and what does it again into the same tensors. Nothing has been done yet."""

    def free_memory(self) -> int:
        """Bytes that the device has left."""


class CudaCapture:
    """Capture of what happens on a GPU, with one side stream and one pool of memory for all graphs.

    The pool can be shared because graphs run one after the other, and nothing of a replay is read after the next one.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.pool = torch.cuda.graph_pool_handle()

    def warm_up(self, work: Callable[[], Result]) -> Result:
        # on the stream of the capture: libraries keep a handle per stream, which can't be made while capturing
        now = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(now)
        with torch.cuda.stream(self.stream):
            result = work()
        now.wait_stream(self.stream)
        return result

    def record(self, work: Callable[[], Result]) -> tuple[Result, Callable[[], None]]:
        """Errors: BackendError where the work waits for the GPU, or does what can't be captured for another reason."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                result = work()
        except RuntimeError as error:
            raise BackendError(refusal(error)) from error
        return result, graph.replay

    def free_memory(self) -> int:
        return int(torch.cuda.mem_get_info(self.device)[0])


def refusal(error: BaseException) -> str:
    # the end of a failed capture raises an error of its own, behind which the reason stands
    while error.__context__ is not None:
        error = error.__context__
    why = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
    return f"the training step can't be captured in a CUDA graph ({why}): leave cuda_graph out"


class Waits(RuntimeError):
    """The processor would have waited for the GPU."""


class WithoutWaiting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within, on any device, `Waits` is raised where work on a GPU would wait for it."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function._schema.name in WAITS:
            raise Waits(function._schema.name)
        return function(*args, **(kwargs or {}))


class Graphed(Generic[Result]):
    """A function of tensors that is captured once for each of their shapes, and replayed.

    It may return anything; the tensors in it hold the numbers of the last replay of that shape. All else that it reads
    must stay where it is in memory, and what is a number of Python's stays what it was.

    Args:
        function: what is captured.
        capture: how.
    """

    def __init__(self, function: Callable[..., Result], capture: Capture) -> None:
        self.function, self.capture = function, capture
        self.calls: Counter[Any] = Counter()
        self.graphs: dict[Any, tuple[tuple[Tensor, ...], Result, Callable[[], None]]] = {}

    def __call__(self, *given: Tensor) -> Result:
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in given)
        if shapes not in self.graphs:
            self.calls[shapes] += 1
            if self.calls[shapes] <= WARM_UP:
                return self.capture.warm_up(lambda: self.function(*given))
            inputs = tuple(tensor.clone() for tensor in given)
            self.graphs[shapes] = (inputs, *self.capture.record(lambda: self.function(*inputs)))
        inputs, result, replay = self.graphs[shapes]
        for own, new in zip(inputs, given, strict=True):
            own.copy_(new)
        replay()
        return result
