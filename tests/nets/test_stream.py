"""Streams: the numbers of the scan, one step at a time, whatever the network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

import pendula
from pendula.ops import native
from tests import tolerance

COMPILED = pytest.mark.skipif(isinstance(native.load(), str), reason=f"{native.load()}")


@pytest.mark.parametrize("network", sorted(pendula.LAYERS))
@pytest.mark.parametrize("carried", [False, True])
def test_a_stream_gives_the_numbers_of_the_scan(network: str, carried: bool) -> None:
    layer = pendula.LAYERS[network](3, 6, 2, dtype=torch.float64).eval()
    x = torch.randn(7, 2, 3, dtype=torch.float64)
    with torch.no_grad():
        state = layer(torch.randn(4, 2, 3, dtype=torch.float64))[1] if carried else None
        stream = layer.stream(2, state)
        outputs = torch.stack([stream(x_t).clone() for x_t in x])
        expected, final = layer(x, state)
    assert_close(outputs, expected, **tolerance.ROUNDING)
    assert_close(tuple(stream.state), tuple(final), **tolerance.ROUNDING)


@COMPILED
@pytest.mark.parametrize(
    "physics",
    [{}, {"variant": "implicit"}, {"dt": torch.linspace(0.1, 0.2, 37), "learnable": ("gamma",)}],
    ids=["explicit", "implicit", "per unit"],
)
def test_a_compiled_stream_gives_the_bits_of_the_compiled_scan(physics: dict[str, Any]) -> None:
    layer = pendula.CoRNN(3, 37, 2, **physics).eval()
    x = torch.randn(20, 2, 3)
    stream = layer.stream(2)
    assert stream.compiled
    outputs = torch.stack([stream(x_t).clone() for x_t in x])
    with torch.no_grad():
        expected, final = layer(x)
    assert_close(outputs, expected, **tolerance.EXACT)
    assert_close(tuple(stream.state), tuple(final), **tolerance.EXACT)


@COMPILED
def test_a_compiled_stream_keeps_the_weights_it_was_opened_with() -> None:
    layer, x = pendula.CoRNN(3, 5).eval(), torch.randn(2, 1, 3)
    expected, _ = layer(x)
    stream = layer.stream()
    stream(x[0])
    with torch.no_grad():
        layer.cell(0).W.zero_()
    assert_close(stream(x[1]), expected[1], **tolerance.FLOAT32)


def test_the_state_given_is_not_written_to() -> None:
    layer = pendula.CoRNN(3, 5).eval()
    state = layer.start(1)
    stream = layer.stream(1, state)
    stream(torch.ones(1, 3))
    assert not any(bool(s.any()) for s in state)
    assert any(bool(s.any()) for s in stream.state)


@pytest.mark.parametrize("network", ["CoRNN", "LSTM"])
def test_a_step_of_another_size_is_refused(network: str) -> None:
    stream = pendula.LAYERS[network](3, 5).eval().stream(2)
    for shape in ((2, 4), (1, 3), (3,)):
        with pytest.raises(pendula.ShapeError, match=r"must .*got"):
            stream(torch.zeros(shape))


def test_what_cannot_stream_is_refused_when_the_stream_is_opened() -> None:
    with pytest.raises(ValueError, match="a bidirectional layer can't stream"):
        pendula.CoRNN(3, 5, bidirectional=True).stream()
    with pytest.raises(ValueError, match="batch must be a whole number"):
        pendula.CoRNN(3, 5).stream(0)
    with pytest.raises(pendula.ShapeError, match=r"hx\.y must be"):
        pendula.CoRNN(3, 5).eval().stream(1, (torch.zeros(1, 2, 5), torch.zeros(1, 2, 5)))


def test_after_a_residual_layer_the_stream_is_right_too() -> None:
    layer = pendula.CoRNN(3, 5, 3, residual=True, dtype=torch.float64).eval()
    x = torch.randn(6, 1, 3, dtype=torch.float64)
    stream = layer.stream()
    outputs = torch.stack([stream(x_t).clone() for x_t in x])
    with torch.no_grad():
        assert_close(outputs, layer(x)[0], **tolerance.ROUNDING)
