"""What every layer promises, whichever network it holds. A network's test inherits `LayerContract`.

Sizes are small and odd on purpose, and the batch has as many sequences as the cells have units: a state that is
transposed, or a mask that is spread along the wrong axis, then has the right shape and the wrong numbers.
"""

from __future__ import annotations

import copy
import io
import itertools
import json
import pickle
import warnings
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence
from torch.testing import assert_close

import pendula
from pendula import ShapeError
from pendula.cells.linear import LinearCell
from pendula.nets import recurrent
from pendula.ops import native
from tests import tolerance

I, N, T, B = 2, 3, 6, 3
# sorting them is no exchange of two: a permutation taken for its inverse is noticed
LENGTHS = [3, 1, 6]

PADDING = pytest.mark.parametrize("padding", [float("nan"), 1e30])
DIRECTIONS = pytest.mark.parametrize("bidirectional", [False, True])
LAYERS = pytest.mark.parametrize("num_layers", [1, 2])
BATCH_FIRST = pytest.mark.parametrize("batch_first", [False, True])


def sequences(steps: int = T, batch: int = B, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(steps, batch, I, dtype=dtype)


def flipped(x: Tensor, lengths: list[int]) -> Tensor:
    """Each sequence (T, B, F) backwards within its length, by hand; zero in the padding."""
    out = torch.zeros_like(x)
    for b, length in enumerate(lengths):
        out[:length, b] = x[:length, b].flip(0)
    return out


def flipped_second(sides: Tensor, bidirectional: bool) -> Tensor:
    """Outputs of two directions side by side, the second turned back into the order of time."""
    if not bidirectional:
        return sides
    half = sides.shape[-1] // 2
    return torch.cat((sides[..., :half], sides[..., half:].flip(0)), -1)


def gradients(layer: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in layer.named_parameters() if p.grad is not None}


def weigh(*tensors: Tensor) -> Tensor:
    """A scalar with another cotangent on every number of every tensor."""
    total = torch.zeros((), dtype=torch.float64)
    for tensor in tensors:
        weight = torch.cos(torch.arange(1, tensor.numel() + 1, dtype=torch.float64)).reshape(tensor.shape)
        total = total + (tensor.to(torch.float64) * weight).sum()
    return total


def only_where(fits: Callable[[type[pendula.cells.Cell]], bool]) -> Callable[[Any], Any]:
    """Marks a test that a network has only where its cell fits: there are no skipped tests to look at."""

    def mark(test: Any) -> Any:
        test.fits = fits
        return test

    return mark


with_time_step = only_where(lambda cell: cell.has_time_step)
without_time_step = only_where(lambda cell: not cell.has_time_step)
from_an_equation = only_where(lambda cell: hasattr(cell, "vector_field"))
reversible = only_where(lambda cell: hasattr(cell, "unstep"))


def fused_scan(cell: type[pendula.cells.Cell]) -> bool:
    # the associative scan of a linear cell counts as one
    return cell.fused is not None or issubclass(cell, LinearCell)


def lacking(cell: type[pendula.cells.Cell]) -> str:
    """Why a fused scan can't run in this installation; empty where it can."""
    compiled = cell.fused is not None and cell.fused.name.startswith("pendula::")
    return native.missing() if compiled else ""


with_fused_scan = only_where(fused_scan)
without_fused_scan = only_where(lambda cell: not fused_scan(cell))


def explode(*_: Any, **__: Any) -> None:
    raise AssertionError("something was unpickled")


class LayerContract:
    """Inherit, and name the network; `physics` goes to its constructor (sizes of per-unit tensors: `N`)."""

    network: ClassVar[str]
    physics: ClassVar[dict[str, Any]] = {}

    kind: ClassVar[type[pendula.Recurrent]]
    fields: ClassVar[tuple[str, ...]]
    backends: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls) -> None:
        if not hasattr(cls, "network"):
            return
        cls.kind = pendula.LAYERS[cls.network]
        cell = cls.kind.cell_type
        cls.fields = cell.State._fields
        if "backends" not in vars(cls):
            runs = fused_scan(cell) and not lacking(cell)
            cls.backends = ("reference", "fused") if runs else ("reference",)
        for name in dir(cls):
            if not getattr(getattr(cls, name), "fits", lambda _: True)(cell):
                setattr(cls, name, None)

    def layer(self, num_layers: int = 1, *, dtype: torch.dtype = torch.float64, **options: Any) -> pendula.Recurrent:
        return self.kind(I, N, num_layers, dtype=dtype, **{**self.physics, **options})

    def state(self, layer: pendula.Recurrent, batch: int = B) -> Any:
        """A state that is not at rest."""
        depth = layer.num_layers * layer.directions
        shapes = [(depth, batch, width) for width in self.widths(layer)]
        return self.kind.cell_type.State(*(0.3 * torch.randn(shape, dtype=torch.float64) for shape in shapes))

    def widths(self, layer: pendula.Recurrent) -> list[int]:
        """Units of each tensor of the state, which are N for most networks."""
        return [s.shape[1] for s in layer.cells[0].initial_state(1)]

    # --- batches and padding

    @PADDING
    @DIRECTIONS
    @LAYERS
    def test_batch_gives_the_numbers_of_its_sequences_one_by_one(
        self, padding: float, bidirectional: bool, num_layers: int
    ) -> None:
        layer = self.layer(num_layers, bidirectional=bidirectional)
        x, state = sequences(), self.state(layer)
        for b, length in enumerate(LENGTHS):
            x[length:, b] = padding
        outputs, final = layer(x, state, lengths=LENGTHS)
        for b, length in enumerate(LENGTHS):
            alone, last = layer(x[:length, b], type(state)(*(s[:, b] for s in state)))
            assert_close(outputs[:length, b], alone, **tolerance.ROUNDING)
            assert_close(tuple(s[:, b] for s in final), tuple(last), **tolerance.ROUNDING)

    @PADDING
    @DIRECTIONS
    @LAYERS
    def test_batch_gives_the_gradients_of_its_sequences_one_by_one(
        self, padding: float, bidirectional: bool, num_layers: int
    ) -> None:
        layer = self.layer(num_layers, bidirectional=bidirectional)
        x = sequences()
        for b, length in enumerate(LENGTHS):
            x[length:, b] = padding
        x.requires_grad_()
        outputs, final = layer(x, lengths=LENGTHS)
        for b, length in enumerate(LENGTHS):
            weigh(outputs[:length, b], *(s[:, b] for s in final)).backward(retain_graph=True)
        together = gradients(layer)
        layer.zero_grad()
        for b, length in enumerate(LENGTHS):
            alone = x[:length, b].detach().requires_grad_()
            out, last = layer(alone)
            weigh(out, *last).backward()
            assert_close(x.grad[:length, b], alone.grad, **tolerance.ROUNDING)
        assert_close(together, gradients(layer), **tolerance.ROUNDING)

    @PADDING
    @DIRECTIONS
    def test_padding_gets_no_gradient(self, padding: float, bidirectional: bool) -> None:
        layer = self.layer(2, bidirectional=bidirectional)
        x = sequences()
        x[1:, 1] = padding
        x.requires_grad_()
        outputs, final = layer(x, lengths=LENGTHS)
        weigh(outputs, *final).backward()
        assert_close(x.grad[1:, 1], torch.zeros(T - 1, I).double(), **tolerance.EXACT)

    @DIRECTIONS
    def test_outputs_are_zero_in_the_padding(self, bidirectional: bool) -> None:
        layer = self.layer(2, bidirectional=bidirectional)
        outputs, _ = layer(sequences(), lengths=LENGTHS)
        assert not any(outputs[length:, b].any() for b, length in enumerate(LENGTHS))

    def test_full_lengths_change_nothing(self) -> None:
        layer, x = self.layer(2), sequences()
        assert_close(layer(x, lengths=[T] * B), layer(x), **tolerance.ROUNDING)

    @pytest.mark.parametrize("make", [list, tuple, torch.tensor, lambda v: torch.tensor(v, dtype=torch.int32)])
    def test_lengths_may_be_any_whole_numbers(self, make: Callable[[list[int]], Any]) -> None:
        layer, x = self.layer(), sequences()
        assert_close(layer(x, lengths=make(LENGTHS)), layer(x, lengths=LENGTHS), **tolerance.EXACT)

    # --- states

    @LAYERS
    def test_step_by_step_gives_the_numbers_of_the_scan(self, num_layers: int) -> None:
        layer, x = self.layer(num_layers), sequences()
        state = self.state(layer)
        expected, final = layer(x, state)
        outputs = []
        for t in range(T):
            out, state = layer.step(x[t], state)
            outputs.append(out)
        assert_close(torch.stack(outputs), expected, **tolerance.ROUNDING)
        assert_close(state, final, **tolerance.ROUNDING)

    def test_step_without_a_batch_gives_the_numbers_of_the_scan(self) -> None:
        layer, x = self.layer(2), sequences()[:, 0]
        state, outputs = None, []
        for t in range(T):
            out, state = layer.step(x[t], state)
            outputs.append(out)
        expected, final = layer(x)
        assert_close(torch.stack(outputs), expected, **tolerance.ROUNDING)
        assert_close(state, final, **tolerance.ROUNDING)

    def test_two_halves_with_a_carried_state_are_the_whole(self) -> None:
        layer, x = self.layer(2), sequences()
        first, state = layer(x[:2])
        second, final = layer(x[2:], state)
        expected, last = layer(x)
        assert_close(torch.cat((first, second)), expected, **tolerance.ROUNDING)
        assert_close(final, last, **tolerance.ROUNDING)

    def test_final_state_is_the_state_at_the_last_valid_step(self) -> None:
        layer, x = self.layer(2), sequences()
        _, final = layer(x, lengths=LENGTHS)
        for b, length in enumerate(LENGTHS):
            state = None
            for t in range(length):
                _, state = layer.step(x[t, b], state)
            assert_close(tuple(s[:, b] for s in final), tuple(state), **tolerance.ROUNDING)

    def test_no_state_is_the_initial_state_of_the_cells(self) -> None:
        layer, x = self.layer(2), sequences()
        rest = [cell.initial_state(B) for cell in layer.cells]
        state = self.kind.cell_type.State(*(torch.stack(parts) for parts in zip(*rest, strict=True)))
        assert_close(layer(x, state), layer(x), **tolerance.EXACT)

    @LAYERS
    @DIRECTIONS
    def test_each_state_is_layers_times_directions_by_batch_by_units(
        self, num_layers: int, bidirectional: bool
    ) -> None:
        layer = self.layer(num_layers, bidirectional=bidirectional)
        _, final = layer(sequences(batch=4))
        depth = num_layers * (1 + bidirectional)
        assert [s.shape for s in final] == [(depth, 4, width) for width in self.widths(layer)]

    def test_a_plain_tuple_is_a_state(self) -> None:
        layer, x = self.layer(), sequences()
        state = self.state(layer)
        assert_close(layer(x, tuple(state)), layer(x, state), **tolerance.EXACT)

    @DIRECTIONS
    def test_gradients_reach_the_initial_state_through_the_final_one(self, bidirectional: bool) -> None:
        layer = self.layer(2, bidirectional=bidirectional)
        state = type(self.state(layer))(*(s.requires_grad_() for s in self.state(layer)))
        _, final = layer(sequences(), state, lengths=LENGTHS)
        weigh(*final).backward()
        assert all(bool((s.grad != 0).all()) for s in state)

    # --- gradients

    @pytest.mark.parametrize("lengths", [None, [2, 3, 1]])
    def test_gradients_are_those_of_finite_differences(self, lengths: list[int] | None) -> None:
        for backend in self.backends:
            self._gradcheck(self.layer(backend=backend), lengths, None)

    def test_gradients_through_layers_and_directions_are_those_of_finite_differences(self) -> None:
        layer = self.layer(2, bidirectional=True)
        self._gradcheck(layer, [2, 3, 1], None, fast_mode=True)

    @pytest.mark.parametrize("lengths", [None, [2, 3, 1]])
    @with_time_step
    def test_gradients_with_time_spans_are_those_of_finite_differences(self, lengths: list[int] | None) -> None:
        self._gradcheck(self.layer(), lengths, 0.5 + torch.rand(3, B, dtype=torch.float64))

    def _gradcheck(self, layer: pendula.Recurrent, lengths: Any, spans: Tensor | None, **options: Any) -> None:
        names = [name for name, _ in layer.named_parameters()]
        state = self.state(layer)
        inputs = [sequences(3), *state, *([] if spans is None else [spans])]
        inputs += [p.detach() for p in layer.parameters()]

        def run(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
            hx, rest = type(state)(*rest[: len(state)]), rest[len(state) :]
            given: dict[str, Any] = {"lengths": lengths}
            if spans is not None:
                given["timespans"], *rest = rest
            parameters = dict(zip(names, rest, strict=True))
            outputs, final = torch.func.functional_call(layer, parameters, (x, hx), given)
            return outputs, *final

        assert torch.autograd.gradcheck(run, tuple(i.requires_grad_() for i in inputs), **options)

    @DIRECTIONS
    @LAYERS
    def test_every_number_of_every_parameter_gets_a_gradient(self, bidirectional: bool, num_layers: int) -> None:
        layer = self.layer(num_layers, bidirectional=bidirectional)
        # a start that is learned gets its gradient where no state is given
        for state in (self.state(layer), None):
            outputs, final = layer(sequences(), state)
            weigh(outputs, *final).backward()
        idle = [name for name, p in layer.named_parameters() if p.grad is None or not bool((p.grad != 0).all())]
        assert idle == []

    # --- the face of torch.nn.LSTM

    @BATCH_FIRST
    def test_shapes_are_those_of_torch_nn_lstm(self, batch_first: bool) -> None:
        for layers, bias, dropout, two in itertools.product((1, 2), (True, False), (0.0, 0.5), (False, True)):
            if dropout and layers == 1:
                continue
            arguments = (I, N, layers, bias, batch_first, dropout, two)
            ours, torchs = self.kind(*arguments, **self.physics), nn.LSTM(*arguments)
            packed = pack_sequence([torch.randn(n, I) for n in (2, 5, 3)], enforce_sorted=False)
            for x in (torch.randn(4, 5, I), torch.randn(4, I), packed):
                outputs, final = ours(x)
                expected, (h_n, _) = torchs(x)
                if x is packed:
                    outputs, expected = outputs.data, expected.data
                # some networks show more than N numbers, or carry states of other widths
                assert outputs.shape == (*expected.shape[:-1], ours.output_size)
                assert [s.shape for s in final] == [(*h_n.shape[:-1], width) for width in self.widths(ours)]

    def test_batch_first_moves_the_batch_and_nothing_else(self) -> None:
        layer = self.layer(2, bidirectional=True)
        other = self.layer(2, bidirectional=True, batch_first=True)
        other.load_state_dict(layer.state_dict())
        x, state = sequences(batch=4), self.state(layer, 4)
        expected, final = layer(x, state, lengths=[6, 2, 5, 1])
        outputs, last = other(x.transpose(0, 1), state, lengths=[6, 2, 5, 1])
        assert_close(outputs, expected.transpose(0, 1), **tolerance.EXACT)
        assert_close(last, final, **tolerance.EXACT)

    @BATCH_FIRST
    def test_a_lone_sequence_needs_no_batch(self, batch_first: bool) -> None:
        layer = self.layer(2, bidirectional=True, batch_first=batch_first)
        x, state = sequences(batch=1), self.state(layer, 1)
        expected, final = layer(x.transpose(0, 1) if batch_first else x, state)
        outputs, last = layer(x[:, 0], type(state)(*(s[:, 0] for s in state)))
        assert_close(outputs, expected.reshape(T, -1), **tolerance.EXACT)
        assert_close(tuple(last), tuple(s[:, 0] for s in final), **tolerance.EXACT)

    @pytest.mark.parametrize(("lengths", "sorted_"), [([3, 1, 6], False), ([6, 3, 1], True), ([6, 3, 1], False)])
    @BATCH_FIRST
    def test_a_packed_sequence_gives_the_numbers_of_lengths(
        self, lengths: list[int], sorted_: bool, batch_first: bool
    ) -> None:
        layer = self.layer(2, bidirectional=True, batch_first=batch_first)
        x, state = sequences(), self.state(layer)
        laid = x.transpose(0, 1) if batch_first else x
        packed = pack_padded_sequence(laid, torch.tensor(lengths), batch_first=batch_first, enforce_sorted=sorted_)
        expected, final = layer(laid, state, lengths=lengths)
        outputs, last = layer(packed, state)
        padded, counts = pad_packed_sequence(outputs, batch_first=batch_first, total_length=T)
        assert counts.tolist() == lengths
        assert_close(padded, expected, **tolerance.EXACT)
        assert_close(last, final, **tolerance.EXACT)

    def test_two_layers_are_one_upon_the_other(self) -> None:
        layer, x = self.layer(2), sequences()
        state = self.state(layer)
        seen, finals = x, []
        for index, cell in enumerate(layer.cells):
            seen, final = pendula.scan(
                cell, seen, type(state)(*(s[index] for s in state)), lengths=torch.tensor(LENGTHS)
            )
            finals.append(final)
        outputs, last = layer(x, state, lengths=LENGTHS)
        assert_close(outputs, seen, **tolerance.EXACT)
        assert_close(tuple(last), tuple(torch.stack(s) for s in zip(*finals, strict=True)), **tolerance.EXACT)

    def test_the_second_direction_reads_each_sequence_backwards(self) -> None:
        layer, x = self.layer(2, bidirectional=True), sequences()
        state = self.state(layer)
        seen, finals = x, []
        for depth in range(2):
            outputs = []
            for direction in range(2):
                index = 2 * depth + direction
                turned = flipped(seen, LENGTHS) if direction else seen
                before = type(state)(*(s[index] for s in state))
                out, final = pendula.scan(layer.cells[index], turned, before, lengths=torch.tensor(LENGTHS))
                outputs.append(flipped(out, LENGTHS) if direction else out)
                finals.append(final)
            seen = torch.cat(outputs, -1)
        outputs, last = layer(x, state, lengths=LENGTHS)
        assert_close(outputs, seen, **tolerance.EXACT)
        assert_close(tuple(last), tuple(torch.stack(s) for s in zip(*finals, strict=True)), **tolerance.EXACT)

    # --- dropout

    def _spied(self, monkeypatch: pytest.MonkeyPatch, layer: pendula.Recurrent, x: Tensor) -> tuple[list, list, Tensor]:
        """Inputs and outputs of each scan of a forward pass, and the outputs of the layer."""
        entered, left = [], []

        def spy(cell: Any, x: Tensor, *arguments: Any, **options: Any) -> Any:
            result = run(cell, x, *arguments, **options)
            entered.append(x)
            left.append(result[0])
            return result

        run = recurrent.run_in_stretches
        monkeypatch.setattr(recurrent, "run_in_stretches", spy)
        return entered, left, layer(x)[0]

    def test_dropout_holds_one_mask_per_sequence_over_all_times(self, monkeypatch: pytest.MonkeyPatch) -> None:
        layer = self.kind(I, 64, 2, dropout=0.5, **self._unsized())
        entered, left, _ = self._spied(monkeypatch, layer, torch.randn(T, 4, I))
        mask = entered[1] / left[0]
        assert set(mask[0].round(decimals=3).unique().tolist()) == {0.0, 2.0}
        assert_close(mask, mask[0].expand_as(mask), **tolerance.FLOAT32)
        assert not torch.equal(mask[0, 0].round(), mask[0, 1].round())

    def test_dropout_draws_anew_for_each_pass(self, monkeypatch: pytest.MonkeyPatch) -> None:
        layer = self.kind(I, 64, 2, dropout=0.5, **self._unsized())
        x = torch.randn(T, 4, I)
        entered, _, _ = self._spied(monkeypatch, layer, x)
        layer(x)
        assert not torch.equal(entered[1] == 0, entered[3] == 0)

    def test_dropout_spares_the_last_layer_if_so_wished(self, monkeypatch: pytest.MonkeyPatch) -> None:
        layer = self.layer(2, dropout=0.9, dropout_last=False)
        _, left, outputs = self._spied(monkeypatch, layer, sequences())
        assert_close(outputs, left[1], **tolerance.EXACT)

    def test_dropout_behind_the_last_layer_holds_one_mask_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        layer = self.kind(I, 64, 1, dropout=0.5, dropout_last=True, **self._unsized())
        _, left, outputs = self._spied(monkeypatch, layer, torch.randn(T, 4, I))
        mask = outputs / left[0]
        assert set(mask[0].round(decimals=3).unique().tolist()) == {0.0, 2.0}
        assert_close(mask, mask[0].expand_as(mask), **tolerance.FLOAT32)

    def test_without_a_word_dropout_ends_where_the_authors_end_it(self) -> None:
        cell = self.kind.cell_type
        assert self.layer().dropout_last is cell.dropout_last
        assert pendula.Node(self.network, N, physics=self.physics).dropout_last is cell.dropout_last

    def test_dropout_does_nothing_in_evaluation(self) -> None:
        layer = self.layer(2, dropout=0.9).eval()
        plain = self.layer(2)
        plain.load_state_dict(layer.state_dict())
        x = sequences()
        assert_close(layer(x), plain(x), **tolerance.EXACT)

    def _unsized(self) -> dict[str, Any]:
        """The physics without what has one number per unit."""
        return {name: value for name, value in self.physics.items() if not isinstance(value, Tensor)}

    # --- residual connections

    @DIRECTIONS
    def test_residual_adds_the_input_of_each_layer_but_the_first(
        self, monkeypatch: pytest.MonkeyPatch, bidirectional: bool
    ) -> None:
        layer = self.layer(3, bidirectional=bidirectional, residual=True)
        entered, left, outputs = self._spied(monkeypatch, layer, sequences())
        sides = [torch.cat(left[i : i + layer.directions], -1) for i in range(0, len(left), layer.directions)]
        sides = [flipped_second(side, bidirectional) for side in sides]
        assert_close(entered[layer.directions], sides[0], **tolerance.EXACT)
        assert_close(entered[2 * layer.directions], sides[0] + sides[1], **tolerance.EXACT)
        assert_close(outputs, sides[0] + sides[1] + sides[2], **tolerance.EXACT)

    # --- irregular series

    @from_an_equation
    def test_the_step_tends_to_the_differential_equation(self) -> None:
        layer = self.layer()
        cell, start = layer.cells[0], layer.cell_type.State(*(s[0] for s in self.state(layer)))
        drive = cell.drive(sequences(1))[0]
        field, errors = cell.vector_field(start, drive), []
        for tau in (1e-3, 5e-4):
            moved = cell.step(start, drive, tau=torch.full((B, 1), tau, dtype=torch.float64))
            slopes = [(new - old) / (tau * cell.dt) for new, old in zip(moved, start, strict=True)]
            errors.append(max((a - b).abs().max().item() for a, b in zip(slopes, field, strict=True)))
        # a consistent step misses the slope by a multiple of its length; Euler's explicit one by rounding only
        assert errors[0] < 0.1
        assert errors[1] == pytest.approx(errors[0] / 2, rel=0.02) or max(errors) < 1e-10

    @reversible
    @pytest.mark.parametrize("spanned", [False, True])
    def test_a_step_can_be_undone(self, spanned: bool) -> None:
        layer = self.layer()
        cell, start = layer.cells[0], layer.cell_type.State(*(s[0] for s in self.state(layer)))
        drive = cell.drive(sequences(1))[0]
        tau = torch.linspace(0.5, 1.5, B).double().unsqueeze(1) if spanned else None
        assert_close(cell.unstep(cell.step(start, drive, tau=tau), drive, tau=tau), start, **tolerance.ROUNDING)

    @with_time_step
    def test_time_spans_of_one_change_nothing(self) -> None:
        layer, x = self.layer(2, bidirectional=True), sequences()
        ones = torch.ones(T, B).double()
        assert_close(layer(x, lengths=LENGTHS, timespans=ones), layer(x, lengths=LENGTHS), **tolerance.EXACT)

    @with_time_step
    def test_time_spans_scale_the_time_step(self) -> None:
        dt = self.physics.get("dt", self.kind.cell_type.physics()["dt"])
        layer, other = self.layer(2), self.layer(2, dt=dt * 0.5)
        weights = {n: v for n, v in other.state_dict().items() if n.endswith("dt")}
        layer_weights = layer.state_dict()
        other.load_state_dict(layer_weights | weights)
        x = sequences()
        spans = torch.full((T, B), 0.5).double()
        assert_close(layer(x, timespans=spans), other(x), **tolerance.ROUNDING)

    @PADDING
    @with_time_step
    def test_time_spans_in_the_padding_have_no_influence(self, padding: float) -> None:
        layer, x = self.layer(2, bidirectional=True), sequences()
        spans = 0.5 + torch.rand(T, B).double()
        spoilt = spans.clone()
        for b, length in enumerate(LENGTHS):
            spoilt[length:, b] = padding
        expected = layer(x, lengths=LENGTHS, timespans=spans)
        assert_close(layer(x, lengths=LENGTHS, timespans=spoilt), expected, **tolerance.EXACT)

    @with_time_step
    def test_backwards_the_span_between_two_samples_is_the_same_one(self) -> None:
        layer, x = self.layer(bidirectional=True), sequences()
        spans = 0.5 + torch.rand(T, B).double()
        outputs, _ = layer(x, lengths=LENGTHS, timespans=spans)
        for b, length in enumerate(LENGTHS):
            own = spans[:length, b]
            # sample t is reached with the span of sample t + 1; the last, reached first, takes the first span
            turned = torch.cat((own[:1], own[1:].flip(0)))
            alone, _ = pendula.scan(layer.cells[1], x[:length, b : b + 1].flip(0), timespans=turned.unsqueeze(1))
            assert_close(outputs[:length, b, layer.output_size // 2 :], alone[:, 0].flip(0), **tolerance.ROUNDING)

    @BATCH_FIRST
    @with_time_step
    def test_time_spans_are_laid_out_as_the_input(self, batch_first: bool) -> None:
        layer = self.layer(2, batch_first=batch_first)
        x, spans = sequences(), 0.5 + torch.rand(T, B).double()
        laid = (x.transpose(0, 1), spans.T) if batch_first else (x, spans)
        outputs, _ = layer(laid[0], timespans=laid[1])
        alone, _ = layer(x[:, 1], timespans=spans[:, 1])
        assert_close(outputs[1] if batch_first else outputs[:, 1], alone, **tolerance.ROUNDING)

    @with_time_step
    def test_step_takes_the_time_span_of_its_step(self) -> None:
        layer, x = self.layer(2), sequences()
        spans = 0.5 + torch.rand(T, B).double()
        state, outputs = None, []
        for t in range(T):
            out, state = layer.step(x[t], state, timespan=spans[t])
            outputs.append(out)
        assert_close((torch.stack(outputs), state), layer(x, timespans=spans), **tolerance.ROUNDING)

    @without_time_step
    def test_time_spans_are_refused_by_a_network_without_a_time_step(self) -> None:
        with pytest.raises(ValueError, match=f"{self.network}.* has no time step.*timespans.*leave timespans out"):
            self.layer()(sequences(), timespans=torch.ones(T, B))

    # --- numbers

    @pytest.mark.parametrize("lengths", [None, LENGTHS])
    def test_single_precision_is_close_to_double(self, lengths: list[int] | None) -> None:
        layer = self.layer(2, bidirectional=True)
        narrow = self.layer(2, bidirectional=True, dtype=torch.float32)
        narrow.load_state_dict(layer.state_dict())
        x = sequences()
        outputs, final = layer(x, lengths=lengths)
        got, last = narrow(x.float(), lengths=lengths)
        weigh(outputs, *final).backward()
        weigh(got, *last).backward()
        assert_close((got, *last), (outputs.float(), *(s.float() for s in final)), **tolerance.FLOAT32)
        expected = {name: g.float() for name, g in gradients(layer).items()}
        assert_close(gradients(narrow), expected, **tolerance.FLOAT32)

    def test_under_autocast_the_state_stays_single_and_close(self) -> None:
        for backend in self.backends:
            layer = self.layer(2, dtype=torch.float32, backend=backend)
            x = sequences(dtype=torch.float32)
            expected, final = layer(x)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                outputs, last = layer(x)
            assert {outputs.dtype, *(s.dtype for s in last)} == {torch.float32}
            assert_close((outputs, *last), (expected, *final), **tolerance.BFLOAT16_PRODUCTS)

    def test_under_autocast_a_narrow_input_is_taken(self) -> None:
        for backend in self.backends:
            layer = self.layer(2, dtype=torch.float32, backend=backend)
            x = sequences(dtype=torch.float32)
            expected, _ = layer(x)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                outputs, _ = layer(x.bfloat16())
            assert outputs.dtype == torch.float32
            assert_close(outputs, expected, **tolerance.BFLOAT16_PRODUCTS)

    def test_under_autocast_every_parameter_gets_a_gradient_of_its_own_type(self) -> None:
        for backend in self.backends:
            layer = self.layer(2, dtype=torch.float32, backend=backend)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                outputs, final = layer(sequences(dtype=torch.float32))
            weigh(outputs, *final).backward()
            assert {p.grad.dtype for p in layer.parameters()} == {torch.float32}

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_without_gradients_the_numbers_are_the_same(self, mode: Any) -> None:
        layer, x = self.layer(2, bidirectional=True), sequences()
        expected = layer(x, lengths=LENGTHS)
        with mode():
            outputs, final = layer(x, lengths=LENGTHS)
        assert not outputs.requires_grad
        assert_close((outputs.clone(), type(final)(*(s.clone() for s in final))), expected, **tolerance.ROUNDING)

    # --- copies and files

    def test_a_state_dict_carries_all_numbers(self) -> None:
        layer, other, x = self.layer(2), self.layer(2), sequences()
        other.load_state_dict(layer.state_dict())
        assert_close(other(x), layer(x), **tolerance.EXACT)

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
    def test_a_copy_gives_the_same_numbers_and_is_its_own(self, copied: Callable[[Any], Any]) -> None:
        layer, x = self.layer(2, bidirectional=True), sequences()
        expected, _ = layer(x)
        other = copied(layer)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.zero_()
        assert type(other) is self.kind
        assert_close(other(x)[0], expected, **tolerance.EXACT)

    def test_the_layer_stands_in_the_package_under_its_name(self) -> None:
        assert getattr(pendula, self.network) is self.kind

    def test_the_signature_names_the_physics(self) -> None:
        names = list(self.kind.__signature__.parameters)
        assert set(self.kind.cell_type.physics()) < set(names)
        assert names[:7] == [
            "input_size",
            "hidden_size",
            "num_layers",
            "bias",
            "batch_first",
            "dropout",
            "bidirectional",
        ]

    def _model(self, dtype: torch.dtype) -> pendula.Model:
        node = pendula.Node(self.network, N, num_layers=2, bidirectional=True, physics=self.physics)
        model = pendula.Model(pendula.ModelSpec(I, 2, (node,), pool="steps", standardise=True), dtype=dtype)
        model.set_standard(torch.tensor([0.3, -0.1]), torch.tensor([2.0, 0.7]))
        return model.eval()

    def test_the_spec_of_a_model_is_the_spec_it_was_built_from(self) -> None:
        node = pendula.Node(self.network, N, num_layers=2, dropout=0.1, physics=self.physics)
        spec = pendula.ModelSpec(I, 2, (node,))
        read = pendula.ModelSpec.from_dict(json.loads(json.dumps(pendula.Model(spec).spec.to_dict())))
        assert read == spec

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_a_saved_model_gives_the_same_numbers_bit_for_bit(self, tmp_path: Path, dtype: torch.dtype) -> None:
        model, x = self._model(dtype), sequences(dtype=dtype)
        loaded = pendula.load(pendula.save(model, tmp_path / "model"))
        assert_close(loaded(x, lengths=LENGTHS), model(x, lengths=LENGTHS), **tolerance.EXACT)

    def test_a_saved_model_is_read_without_unpickling(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        model, x = self._model(torch.float64), sequences()
        pendula.save(model, tmp_path / "model")
        for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
            monkeypatch.setattr(module, name, explode)
        assert_close(pendula.load(tmp_path / "model")(x), model(x), **tolerance.EXACT)

    def test_torch_save_holds_a_state_dict_that_weights_only_reads(self) -> None:
        layer, file = self.layer(2), io.BytesIO()
        torch.save(layer.state_dict(), file)
        file.seek(0)
        assert_close(dict(torch.load(file, weights_only=True)), dict(layer.state_dict()), **tolerance.EXACT)

    # --- refusals: got, needed, what to do

    @pytest.mark.parametrize(
        ("x", "error", "said"),
        [
            (torch.zeros(T, B, I + 1).double(), ShapeError, r"input must be \(time, batch, 2\), got \(6, 3, 3\)"),
            (torch.zeros(T, I + 1).double(), ShapeError, r"input must be \(time, 2\), got \(6, 3\)"),
            (torch.zeros(I).double(), ShapeError, r"input must be .*2.*, got \(2,\)"),
            (torch.zeros(T, B, I, 1).double(), ShapeError, r"input must be \(time, batch, 2\), got \(6, 3, 2, 1\)"),
            (torch.zeros(0, B, I).double(), ShapeError, r"input must have at least one time step .*\(0, 3, 2\)"),
            (torch.zeros(T, 0, I).double(), ShapeError, r"input must have .*one sequence.*\(6, 0, 2\)"),
            (torch.zeros(0, I).double(), ShapeError, r"input must have at least one time step .*\(0, 2\)"),
            (torch.zeros(T, B, I).long(), TypeError, r"input must be floating point, got torch.int64.*\.to\("),
            (torch.zeros(T, B, I), TypeError, r"input is torch.float32, the parameters are torch.float64.*\.to\("),
            (torch.zeros(T, B, I, device="meta").double(), ValueError, r"input is on meta.*on cpu.*\.to\("),
            ([[0.0] * I] * T, TypeError, r"input must be a tensor or a PackedSequence, got list"),
            (None, TypeError, r"input must be a tensor or a PackedSequence, got NoneType"),
        ],
    )
    def test_a_bad_input_is_refused(self, x: Any, error: type[Exception], said: str) -> None:
        with pytest.raises(error, match=said):
            self.layer()(x)

    def test_a_bad_input_is_refused_in_the_layout_it_was_given_in(self) -> None:
        with pytest.raises(ShapeError, match=r"input must be \(batch, time, 2\), got \(3, 6, 3\)"):
            self.layer(batch_first=True)(torch.zeros(B, T, I + 1).double())

    def test_double_input_to_a_single_layer_is_refused(self) -> None:
        with pytest.raises(TypeError, match=r"input is torch.float64, the parameters are torch.float32.*\.to\("):
            self.layer(dtype=torch.float32)(sequences())

    @pytest.mark.parametrize(
        ("lengths", "error", "said"),
        [
            ([0, 6, 1], ValueError, "lengths must be from 1 to 6 .*got 0 to 6: drop empty sequences"),
            ([7, 6, 1], ValueError, "lengths must be from 1 to 6 .*got 1 to 7: .*pad the input"),
            ([-1, 6, 1], ValueError, "lengths must be from 1 to 6 .*got -1 to 6"),
            ([6, 6], ShapeError, r"lengths must hold one number per sequence, shape \(3,\), got \(2,\)"),
            ([[6, 6, 6]], ShapeError, r"lengths must hold one number per sequence, shape \(3,\), got \(1, 3\)"),
            (6, ShapeError, r"lengths must hold one number per sequence, shape \(3,\), got \(\)"),
            ([6.0, 3.0, 1.0], TypeError, "lengths must be whole numbers, got torch.float32"),
            ([True, True, True], TypeError, "lengths must be whole numbers, got torch.bool"),
        ],
    )
    def test_bad_lengths_are_refused(self, lengths: Any, error: type[Exception], said: str) -> None:
        with pytest.raises(error, match=said):
            self.layer()(sequences(), lengths=lengths)

    def test_lengths_without_a_batch_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"lengths need a batch.*cut the sequence"):
            self.layer()(sequences()[:, 0], lengths=[3])

    def test_lengths_beside_a_packed_sequence_are_refused(self) -> None:
        packed = pack_padded_sequence(sequences(), torch.tensor([6, 3, 1]))
        with pytest.raises(ValueError, match="a PackedSequence carries its lengths: leave lengths out"):
            self.layer()(packed, lengths=[6, 3, 1])

    def test_a_packed_sequence_of_other_features_is_refused(self) -> None:
        packed = pack_padded_sequence(torch.zeros(T, B, I + 1).double(), torch.tensor([6, 3, 1]))
        with pytest.raises(ShapeError, match=r"input must be \(time, batch, 2\), got \(6, 3, 3\)"):
            self.layer()(packed)

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda s: torch.cat((s, s[:, :1]), 1),
            lambda s: torch.cat((s, s)),
            lambda s: torch.cat((s, s[:, :, :1]), 2),
            lambda s: s[0],
            lambda s: s.unsqueeze(0),
        ],
        ids=["batch", "depth", "units", "no depth", "one more dimension"],
    )
    def test_a_state_of_another_shape_is_refused(self, spoil: Callable[[Tensor], Tensor]) -> None:
        layer = self.layer()
        state = self.state(layer)
        width = self.widths(layer)[0]
        said = rf"hx\.{self.fields[0]} must be \(layers x directions, batch, units\) = \(1, 3, {width}\), got"
        with pytest.raises(ShapeError, match=said):
            layer(sequences(), type(state)(*(spoil(s) for s in state)))

    def test_a_batched_state_of_a_lone_sequence_is_refused(self) -> None:
        layer = self.layer()
        with pytest.raises(ShapeError, match=r"hx of an unbatched input must be \(layers x directions, units\), got"):
            layer(sequences()[:, 0], self.state(layer, 1))

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda state, foreign: state[0],
            lambda state, foreign: list(state),
            lambda state, foreign: (*state, state[0]),
            lambda state, foreign: (),
            lambda state, foreign: tuple(None for _ in state),
            lambda state, foreign: dict(enumerate(state)),
            lambda state, foreign: foreign,
            lambda state, foreign: namedtuple("OtherState", [f"{f}_" for f in state._fields])(*state),
        ],
        ids=["tensor", "list", "one too many", "empty", "no tensors", "dict", "another network's", "as many fields"],
    )
    def test_a_state_of_another_structure_is_refused(self, spoil: Callable[[Any, Any], Any]) -> None:
        layer = self.layer()
        state = self.state(layer)
        other = next(cell for cell in pendula.CELLS.values() if cell.State._fields != self.fields)
        foreign = other.State(*(torch.zeros(1, B, N).double() for _ in other.State._fields))
        said = rf"hx must be a tuple of {len(self.fields)} tensors \({', '.join(self.fields)}\) .*{self.network}.*, got"
        with pytest.raises(ShapeError, match=said):
            layer(sequences(), spoil(state, foreign))

    def test_a_state_of_another_type_is_refused(self) -> None:
        layer = self.layer()
        state = type(self.state(layer))(*(s.float() for s in self.state(layer)))
        with pytest.raises(
            TypeError, match=rf"hx\.{self.fields[0]} must be torch.float64 on cpu, got torch.float32.*\.to\("
        ):
            layer(sequences(), state)

    @pytest.mark.parametrize(
        ("spans", "error", "said"),
        [
            (
                torch.full((T, B), -1.0),
                ValueError,
                "timespans must be positive and finite, got -1.0 at step 0 of sequence 0",
            ),
            (torch.zeros(T, B), ValueError, "timespans must be positive.*got 0.0.*merge samples"),
            (torch.full((T, B), float("nan")), ValueError, "timespans must be positive and finite, got nan"),
            (
                torch.ones(B, T - 1),
                ShapeError,
                r"timespans must hold one number per step and sequence, shape \(6, 3\), got",
            ),
            (torch.ones(T), ShapeError, r"timespans must .*shape \(6, 3\), got \(6,\)"),
            ([[1.0] * B], ShapeError, r"timespans must .*shape \(6, 3\), got \(1, 3\)"),
        ],
    )
    @with_time_step
    def test_bad_time_spans_are_refused(self, spans: Any, error: type[Exception], said: str) -> None:
        with pytest.raises(error, match=said):
            self.layer()(sequences(), timespans=spans)

    def test_misspelt_physics_is_refused(self) -> None:
        with pytest.raises(ValueError, match=f"{self.network} has no 'gama'"):
            self.layer(gama=1.0)

    @pytest.mark.parametrize("argument", ["input_size", "hidden_size", "num_layers"])
    @pytest.mark.parametrize("value", [0, -1, 1.5, "2", True, None])
    def test_a_size_that_is_no_positive_whole_number_is_refused(self, argument: str, value: Any) -> None:
        sizes = {"input_size": I, "hidden_size": N, "num_layers": 1, argument: value}
        with pytest.raises(ValueError, match=f"{argument} must be a whole number, at least 1, got {value!r}"):
            self.kind(**sizes, **self._unsized())

    @pytest.mark.parametrize("dropout", [-0.1, 1.0, 2, float("nan"), True, "half"])
    def test_a_dropout_that_is_no_probability_is_refused(self, dropout: Any) -> None:
        with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\), got"):
            self.layer(2, dropout=dropout)

    def test_an_unknown_backend_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"backend must be one of auto, reference, fused, got 'fussed'.*'fused'"):
            self.layer(backend="fussed")

    def test_a_bidirectional_layer_refuses_to_stream(self) -> None:
        with pytest.raises(ValueError, match="a bidirectional layer can't stream"):
            self.layer(bidirectional=True).step(sequences()[0])

    def test_streaming_with_dropout_in_training_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"new dropout mask at each step: call \.eval\(\)"):
            self.layer(2, dropout=0.5).step(sequences()[0])

    @pytest.mark.parametrize("shape", [(T, B, I), (), (B, I + 1), (I + 1,), (0, I)])
    def test_a_bad_time_step_is_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ShapeError, match=r"must .*got"):
            self.layer().step(torch.zeros(shape).double())

    @with_time_step
    def test_step_refuses_time_spans_of_another_size(self) -> None:
        with pytest.raises(ShapeError, match=r"timespans must .*got"):
            self.layer().step(sequences()[0], timespan=torch.ones(B + 1))

    # --- backends

    @without_fused_scan
    def test_a_missing_fused_scan_is_said_when_demanded(self) -> None:
        with pytest.raises(pendula.BackendError, match=f"{self.network} has no fused scan.*backend='auto'"):
            self.layer(backend="fused")(sequences())

    def test_auto_is_silent_and_gives_the_numbers_of_the_reference(self) -> None:
        layer, x = self.layer(2, bidirectional=True), sequences()
        reference = self.layer(2, bidirectional=True, backend="reference")
        reference.load_state_dict(layer.state_dict())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            got = layer(x, lengths=LENGTHS)
        assert_close(got, reference(x, lengths=LENGTHS), **tolerance.ROUNDING)

    @pytest.mark.parametrize("lengths", [None, LENGTHS])
    @DIRECTIONS
    @with_fused_scan
    def test_the_fused_scan_gives_the_gradients_of_the_reference(self, lengths: Any, bidirectional: bool) -> None:
        if lacking(self.kind.cell_type):
            pytest.skip(lacking(self.kind.cell_type))
        fused = self.layer(2, bidirectional=bidirectional, backend="fused")
        reference = self.layer(2, bidirectional=bidirectional, backend="reference")
        reference.load_state_dict(fused.state_dict())
        x, state, found = sequences(), self.state(fused), []
        for layer in (fused, reference):
            given = x.clone().requires_grad_()
            hx = type(state)(*(s.clone().requires_grad_() for s in state))
            outputs, final = layer(given, hx, lengths=lengths)
            weigh(outputs, *final).backward()
            found.append((outputs, final, given.grad, [s.grad for s in hx], gradients(layer)))
        for ours, theirs in zip(*found, strict=True):
            assert_close(ours, theirs, **tolerance.ROUNDING)
