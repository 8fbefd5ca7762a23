"""A layer: a scan with the face of `torch.nn.LSTM`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout as drop
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from pendula import _check
from pendula.cells import Cell, State
from pendula.nets.directions import backwards, take
from pendula.nets.given_state import batch_of_one, check_state, fields_of
from pendula.nets.per_layer import one_width, per_layer
from pendula.nets.scan import BACKENDS, valid_steps
from pendula.nets.stream import Stream
from pendula.nets.stretches import run_in_stretches


class Recurrent(nn.Module):
    """A stack of cells over time, called as `torch.nn.LSTM` is.

    Args:
        input_size: I, features of the input.
        hidden_size: N, units of each cell.
        num_layers: L, cells stacked on one another.
        bias: whether the cells have biases.
        batch_first: the input and the outputs are (B, T, features) instead of (T, B, features).
        dropout: probability between layers, one mask per sequence held over all times. A cell that `drops_inside`
            does it itself, within its block.
        bidirectional: D = 2 directions, outputs side by side.
        residual: from the second layer on, a layer's input is added to its output (after the dropout).
        dropout_last: whether the dropout also acts behind the last layer; None: as the network's authors do.
        backend: "auto", "reference" or "fused", as in `pendula.scan`.
        recompute_every: steps between the states that are kept for the backward pass, which computes those in between
            again: less memory, for one more forward pass. None: all that it needs is kept.
        physics: keyword arguments of the cell. A list of numbers gives one value per layer; a tensor one per unit.

    Shapes: input (T, B, I), (B, T, I) with batch_first, (T, I) without a batch, or a `PackedSequence`; outputs the
    same with D * O features; every tensor of a state (L * D, B, units), or (L * D, units) without a batch.

    Errors: ShapeError, TypeError or ValueError naming the argument, what was got and what is needed.
    """

    cell_type: ClassVar[type[Cell]]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        residual: bool = False,
        dropout_last: bool | None = None,
        backend: str = "auto",
        recompute_every: int | None = None,
        device: Any = None,
        dtype: Any = None,
        **physics: Any,
    ) -> None:
        super().__init__()
        self.input_size = _check.positive_int("input_size", input_size)
        self.hidden_size = _check.positive_int("hidden_size", hidden_size)
        self.num_layers = _check.positive_int("num_layers", num_layers)
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = _check.probability("dropout", dropout)
        self.bidirectional = bidirectional
        self.residual = residual
        self.dropout_last = self.cell_type.dropout_last if dropout_last is None else dropout_last
        self.backend = _check.one_of("backend", backend, BACKENDS)
        self.recompute_every = recompute_every
        self.cell_type.check_physics(physics)
        by_layer = [{} for _ in range(num_layers)]  # type: list[dict[str, Any]]
        for name, value in physics.items():
            for layer, own in enumerate(per_layer(name, value, num_layers)):
                by_layer[layer][name] = own
        build: Callable[..., Cell] = self.cell_type
        cells: list[Cell] = []
        for own in by_layer:
            size = input_size if not cells else self.directions * cells[-1].output_size
            cells += [build(size, hidden_size, bias, device=device, dtype=dtype, **own) for _ in range(self.directions)]
        if num_layers > 1:
            one_width(cells, by_layer)
        self.cells = nn.ModuleList(cells)

    @property
    def recompute_every(self) -> int | None:
        return self._recompute_every

    @recompute_every.setter
    def recompute_every(self, steps: int | None) -> None:
        if steps is not None:
            _check.positive_int("recompute_every", steps)
            if self.cell_type.drops_inside and self.dropout:
                raise ValueError(
                    f"{type(self).__name__} draws one dropout mask for all times, and recompute_every cuts them: leave "
                    "one of them out"
                )
        self._recompute_every = steps

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        return self.directions * self.cell(0).output_size

    def cell(self, index: int) -> Cell:
        """The cell of a layer and direction, counted as the first axis of a state."""
        # a list of modules looks longer for it than a small layer takes for a step
        cell = self.cells._modules[str(index)]
        assert isinstance(cell, Cell)
        return cell

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: State | None = None,
        *,
        lengths: Any = None,
        timespans: Tensor | None = None,
    ) -> tuple[Any, State]:
        """Run the layer.

        Args:
            input: sequences, see the class.
            hx: state before the first step, as the layer returns it; the cells' own when None.
            lengths: (B,) valid steps of each padded sequence, in any order. Padding has no influence.
            timespans: positive factors on the time step, shaped as the input without its features: the time since the
                sample before, in units of dt. Backwards, the span between two samples is the same one, so sample t is
                reached with the span of sample t + 1, and the last sample, reached first, takes the first span.

        Returns:
            Outputs of the last layer (zero in the padding) and the state after each sequence's last step.
        """
        if isinstance(input, PackedSequence):
            return self._packed(input, hx, lengths, timespans)
        if not isinstance(input, Tensor):
            raise TypeError(f"input must be a tensor or a PackedSequence, got {type(input).__name__}")
        if input.dim() == 2:
            if lengths is not None:
                raise ValueError("lengths need a batch: give input as (T, B, I), or cut the sequence to its length")
            _check.sequence_input(input, self.input_size, self._weight, layout="time")
            x = input.unsqueeze(1)
            state = None if hx is None else tuple(batch_of_one(s) for s in self._fields(hx))
            spans = timespans if timespans is None else torch.as_tensor(timespans).reshape(-1, 1)
            output, final = self._run(x, state, None, spans)
            return output.squeeze(1), type(final)(*(s.squeeze(1) for s in final))
        layout = "batch, time" if self.batch_first else "time, batch"
        _check.sequence_input(input, self.input_size, self._weight, layout=layout)
        x = input.transpose(0, 1) if self.batch_first else input
        spans = None if timespans is None else self._spans(timespans, x)
        output, final = self._run(x, None if hx is None else self._fields(hx), lengths, spans)
        return (output.transpose(0, 1) if self.batch_first else output), final

    def step(self, x: Tensor, hx: State | None = None, *, timespan: Any = None) -> tuple[Tensor, State]:
        """One time step with carried state, for streams: (B, I) or (I,) in, (B, O) or (O,) and the new state out."""
        if self.bidirectional:
            raise ValueError("a bidirectional layer can't stream: it needs the end of the sequence")
        if self.training and self.dropout and (self.num_layers > 1 or self.dropout_last):
            raise ValueError("step() would draw a new dropout mask at each step: call .eval() first")
        if not isinstance(x, Tensor) or x.dim() not in (1, 2) or x.shape[-1] != self.input_size:
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise _check.ShapeError(
                f"x must be one time step, (batch, {self.input_size}) or ({self.input_size},), got {got}"
            )
        lone = x.dim() == 1
        sequence = x.reshape(1, 1, -1) if lone else x.unsqueeze(0)
        _check.sequence_input(sequence, self.input_size, self._weight)
        spans = None
        if timespan is not None:
            spans = torch.as_tensor(timespan).reshape(1, -1)
            # one number is for all sequences
            spans = spans.expand(1, sequence.shape[1]) if spans.numel() == 1 else spans
        state = None
        if hx is not None:
            state = self._fields(hx)
            state = tuple(batch_of_one(s) for s in state) if lone else state
        output, final = self._run(sequence, state, None, spans)
        return (output[0, 0], type(final)(*(s.squeeze(1) for s in final))) if lone else (output[0], final)

    def stream(self, batch: int = 1, state: State | None = None) -> Stream:
        """Steps without gradients from a state on (the layer's own when None), fast where there is a compiled scan."""
        return Stream(self, batch, state)

    def start(self, batch: int) -> State:
        """The state before the first step, as the layer takes and returns it."""
        rest = [self.cell(i).initial_state(batch) for i in range(len(self.cells))]
        start: State = self.cell_type.State(*(torch.stack(parts) for parts in zip(*rest, strict=True)))
        return start

    @property
    def _weight(self) -> Tensor:
        return self.cell(0).like

    def _packed(
        self, packed: PackedSequence, hx: State | None, lengths: Any, timespans: Tensor | None
    ) -> tuple[PackedSequence, State]:
        if lengths is not None:
            raise ValueError("a PackedSequence carries its lengths: leave lengths out")
        x, count = pad_packed_sequence(packed)
        _check.sequence_input(x, self.input_size, self._weight)
        spans = None if timespans is None else self._spans(timespans, x)
        output, final = self._run(x, None if hx is None else self._fields(hx), count, spans)
        if packed.sorted_indices is not None:
            output, count = output.index_select(1, packed.sorted_indices), count[packed.sorted_indices.cpu()]
        data = pack_padded_sequence(output, count).data
        return PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices), final

    def _run(
        self, x: Tensor, hx: tuple[Tensor, ...] | None, lengths: Any, timespans: Tensor | None
    ) -> tuple[Tensor, State]:
        steps, batch = x.shape[:2]
        count = None if lengths is None else _check.lengths_of(lengths, steps, batch, x.device)
        if timespans is not None:
            timespans = _check.timespans_of(timespans, steps, batch, self._weight)
            _check.positive_timespans(timespans, None if count is None else valid_steps(count, steps))
        if hx is not None:
            check_state(hx, self.cell(0).initial_state(batch), len(self.cells))
        finals: list[State] = []
        for layer in range(self.num_layers):
            x, ends = self.run_layer(layer, x, hx, count, timespans)
            finals += ends
        if len(finals) == 1:
            return x, self.cell_type.State(*(s.unsqueeze(0) for s in finals[0]))
        return x, self.cell_type.State(*(torch.stack(field) for field in zip(*finals, strict=True)))

    def run_layer(
        self, layer: int, x: Tensor, hx: tuple[Tensor, ...] | None, lengths: Tensor | None, timespans: Tensor | None
    ) -> tuple[Tensor, list[State]]:
        """One layer, with dropout and residual: outputs (T, B, D * O) and the final state of each direction.

        For learning rules, which train the layers apart. x (T, B, features); nothing is checked.
        """
        outputs, finals, rate = [], [], self.rate(layer)
        for direction in range(self.directions):
            index = layer * self.directions + direction
            cell = self.cell(index)
            if cell.drops_inside:
                cell.dropout = rate
            state = None if hx is None else cell.State(*(s[index] for s in hx))
            how: dict[str, Any] = {"lengths": lengths, "every": self.recompute_every, "backend": self.backend}
            if direction == 0:
                out, final = run_in_stretches(cell, x, state, tau=timespans, **how)
            else:
                back = backwards(lengths, x.shape[0], x.shape[1], x.device)
                tau = None
                if timespans is not None:
                    # the gap between two samples is one and the same in both directions
                    tau = torch.cat((timespans[:1], timespans.gather(0, back)[:-1]))
                out, final = run_in_stretches(cell, take(x, back), state, tau=tau, **how)
                out = take(out, back)
            outputs.append(out)
            finals.append(final)
        out = torch.cat(outputs, -1) if self.bidirectional else outputs[0]
        mask = self.mask(layer, out[0]) if rate else None
        out = out if mask is None else out * mask
        return (x + out if self.residual and layer else out), finals

    def rate(self, layer: int) -> float:
        """The probability of dropout behind a layer, or within its cell."""
        return self.dropout if self.dropout_last or layer + 1 < self.num_layers else 0.0

    def mask(self, layer: int, like: Tensor) -> Tensor | None:
        """A new mask (B, features) for the outputs of a layer, scaled to mean 1; None where nothing is dropped."""
        if not self.rate(layer) or not self.training or self.cell_type.drops_inside:
            return None
        return drop(torch.ones_like(like), self.rate(layer))

    def _spans(self, timespans: Any, x: Tensor) -> Tensor:
        """(T, B) of the user's time spans, which are laid out as the input is."""
        steps, batch = x.shape[:2]
        return _check.timespans_of(timespans, steps, batch, self._weight, batch_first=self.batch_first)

    def _fields(self, hx: Any) -> tuple[Tensor, ...]:
        return fields_of(hx, self.cell_type.State, type(self).__name__)

    def extra_repr(self) -> str:
        words = [str(self.input_size), str(self.hidden_size)]
        words += [f"num_layers={self.num_layers}"] if self.num_layers != 1 else []
        said = ("batch_first", "dropout", "bidirectional", "residual")
        words += [f"{name}={getattr(self, name)}" for name in said if getattr(self, name)]
        return ", ".join(words)
