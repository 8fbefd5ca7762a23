"""The compiled scans without the dispatcher: the operators' numbers, and the operators where somebody follows them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

import pendula
from pendula.ops import direct, native
from tests import tolerance

pytestmark = pytest.mark.skipif(isinstance(native.load(), str), reason=f"{native.load()}")
LEARNED = {"learnable": ("dt", "gamma")}
NETWORKS = {"CoRNN": LEARNED, "UnICORNN": {}, "LEM": {}, "ODERNN": LEARNED}
EVERY_NETWORK = pytest.mark.parametrize("network", sorted(NETWORKS))


class Heard(TorchDispatchMode):
    """Names of our operators that passed the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, operator: Any, types: Any, given: Any = (), words: Any = None) -> Any:
        if operator.namespace == "pendula":
            self.names.append(operator.__name__.removesuffix(".default"))
        return operator(*given, **(words or {}))


def layer_of(network: str, **more: Any) -> Any:
    torch.manual_seed(0)
    return getattr(pendula, network)(3, 5, **NETWORKS[network], **more)


def numbers(layer: Any, x: Tensor) -> list[Tensor]:
    outputs, state = layer(x)
    found = torch.autograd.grad((outputs.square().sum() + sum(s.sum() for s in state)), [x, *layer.parameters()])
    return [outputs, *state, *found]


@EVERY_NETWORK
def test_numbers_and_gradients_are_the_operators_bit_for_bit(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = layer_of(network, backend="fused"), torch.randn(70, 4, 3, requires_grad=True)
    found = numbers(layer, x)
    monkeypatch.setattr(direct, "listened", lambda: True)
    assert_close(found, numbers(layer, x), **tolerance.EXACT)


@EVERY_NETWORK
def test_a_dispatch_mode_sees_the_operators(network: str) -> None:
    layer, x = layer_of(network, backend="fused"), torch.randn(7, 2, 3, requires_grad=True)
    with Heard() as heard:
        numbers(layer, x)
    name = f"{network.lower()}_scan"
    assert heard.names == [name, f"{name}_backward"]


@EVERY_NETWORK
def test_without_a_listener_the_operator_is_not_called(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = getattr(pendula.ops, network.lower())

    def never(*given: Any) -> Any:
        raise AssertionError("the operator was called")

    for called in (module.direct, module._direct_backward):
        monkeypatch.setattr(called, "operator", never)
    layer, x = layer_of(network, backend="fused"), torch.randn(7, 2, 3, requires_grad=True)
    numbers(layer, x)
    with torch.no_grad():
        layer(x)


@EVERY_NETWORK
def test_a_scan_is_not_differentiated_twice(network: str) -> None:
    layer, x = layer_of(network, backend="fused"), torch.randn(7, 2, 3, requires_grad=True)
    (by_x,) = torch.autograd.grad(layer(x)[0].square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        by_x.sum().backward()


def by_forward_mode(layer: Any, x: Tensor, along: Tensor) -> Tensor:
    with forward_ad.dual_level():
        tangent: Tensor = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, along))[0]).tangent
        return tangent


def by_jvp(layer: Any, x: Tensor, along: Tensor) -> Tensor:
    tangent: Tensor = torch.func.jvp(lambda x: layer(x)[0], (x,), (along,))[1]
    return tangent


def by_differences(layer: Any, x: Tensor, along: Tensor) -> Tensor:
    step = 1e-6
    difference: Tensor = (layer(x + step * along)[0] - layer(x - step * along)[0]) / (2 * step)
    return difference


@EVERY_NETWORK
@pytest.mark.parametrize("derivative", [by_forward_mode, by_jvp])
def test_forward_mode_takes_the_reference_scan_and_is_right(
    network: str, derivative: Callable[[Any, Tensor, Tensor], Tensor]
) -> None:
    layer, x, along = layer_of(network, dtype=torch.float64), *torch.randn(2, 7, 2, 3, dtype=torch.float64)
    with warnings.catch_warnings(), torch.no_grad():
        # said once per process
        warnings.filterwarnings("ignore", message=".*runs on the reference scan")
        found = derivative(layer, x, along)
        assert_close(found, by_differences(layer, x, along), rtol=1e-6, atol=1e-8)


def test_asked_for_the_compiled_scan_forward_mode_is_refused() -> None:
    layer = layer_of("CoRNN", backend="fused")
    with pytest.raises(pendula.BackendError, match=r"knows neither torch.func nor forward-mode differentiation"):
        by_jvp(layer, torch.randn(7, 2, 3), torch.randn(7, 2, 3))


@EVERY_NETWORK
def test_gradients_of_functions_are_those_of_autograd(network: str) -> None:
    layer, x = layer_of(network), torch.randn(7, 2, 3)
    parameters = dict(layer.named_parameters())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*runs on the reference scan")
        found = torch.func.grad(lambda p: functional_call(layer, p, (x,))[0].square().sum())(parameters)
    layer(x)[0].square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert_close(found[name], parameter.grad, **tolerance.FLOAT32)


@EVERY_NETWORK
def test_lengths_and_time_spans_go_through_a_whole_graph(network: str) -> None:
    layer, x, lengths = layer_of(network), torch.randn(7, 2, 3), torch.tensor([7, 4])
    spans = torch.rand(7, 2) + 0.5

    def run(x: Tensor, lengths: Tensor, spans: Tensor) -> Tensor:
        outputs: Tensor = layer(x, lengths=lengths, timespans=spans)[0]
        return outputs

    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend="aot_eager")
    assert_close(compiled(x, lengths, spans), run(x, lengths, spans), **tolerance.FLOAT32)
    with pytest.raises(RuntimeError, match="lengths must be from 1 to the padded length"):
        compiled(x, lengths + 1, spans)
    with pytest.raises(RuntimeError, match="timespans must be positive and finite"):
        compiled(x, lengths, spans - 2)
