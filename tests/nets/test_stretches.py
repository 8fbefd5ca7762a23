"""A backward pass that computes stretches of the scan again gives the same gradients, and keeps less."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

import pendula
from pendula.learn.training import Training
from pendula.nets.layers import LAYERS
from pendula.nets.recurrent import Recurrent
from pendula.tasks.base import Batch


def passed(layer: Recurrent, every: int | None, lengths: Tensor | None, timespans: Tensor | None) -> list[Tensor]:
    """Outputs, final state and all gradients; what stands in the padding is not a number."""
    x = torch.randn(13, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    if lengths is not None:
        x[(torch.arange(13).unsqueeze(1) >= lengths)] = float("nan")
    layer.recompute_every = every
    layer.zero_grad()
    x.requires_grad_()
    outputs, state = layer(x, lengths=lengths, timespans=timespans)
    fields = [torch.view_as_real(field) if field.is_complex() else field for field in state]
    (outputs.square().mean() + sum(field.mean() for field in fields)).backward()
    return [outputs.detach(), *(f.detach() for f in fields), x.grad, *(p.grad for p in layer.parameters())]  # type: ignore[list-item]


@pytest.mark.parametrize("every", [1, 4, 12])
@pytest.mark.parametrize("network", LAYERS)
def test_gradients_are_those_of_the_whole_scan(network: str, every: int) -> None:
    torch.manual_seed(0)
    layer = LAYERS[network](3, 8, bidirectional=True, dtype=torch.float64)
    spans = torch.rand(13, 4, dtype=torch.float64) + 0.5 if layer.cell(0).has_time_step else None
    for lengths in (None, torch.tensor([13, 1, 5, 8])):
        whole = passed(layer, None, lengths, spans)
        for found, wanted in zip(passed(layer, every, lengths, spans), whole, strict=True):
            assert (found is None) == (wanted is None)
            if wanted is not None:
                assert (found - wanted).abs().max() <= 1e-12 * max(1.0, wanted.abs().max())


def test_less_is_kept() -> None:
    kept = {}
    for every in (None, 28):
        layer = pendula.CoRNN(2, 16, recompute_every=every)
        seen: dict[int, int] = {}

        def keep(tensor: Tensor, seen: dict[int, int] = seen) -> Tensor:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            layer(torch.randn(784, 3, 2))[0].sum()
        kept[every] = sum(seen.values())
    assert kept[28] < 0.2 * kept[None]


def test_without_gradients_nothing_is_cut() -> None:
    layer = pendula.CoRNN(2, 4, recompute_every=3)
    x = torch.randn(10, 2, 2)
    with torch.no_grad():
        cut = layer(x)[0]
        layer.recompute_every = None
        assert torch.equal(layer(x)[0], cut)


def test_a_training_with_it_takes_the_same_gradients() -> None:
    torch.manual_seed(0)
    model = pendula.Model(pendula.ModelSpec(2, 1, (pendula.Node("CoRNN", 4, num_layers=2),)), dtype=torch.float64)
    batch = Batch(torch.randn(20, 3, 2, dtype=torch.float64), torch.randn(3, 1, dtype=torch.float64))
    found = []
    for every in (None, 7):
        rule = Training(recompute_every=every).make_rule()
        rule.prepare(model)
        layer = model.layers["layer0"]
        assert isinstance(layer, Recurrent)
        assert layer.recompute_every == every
        model.zero_grad()
        loss, _ = rule(model, batch, lambda output, batch: mse_loss(output, batch.y), lambda t, **w: t.backward(**w))
        found.append([loss, *(p.grad for p in model.parameters())])
    for cut, whole in zip(*found, strict=True):
        assert (cut - whole).abs().max() <= 1e-12


def test_what_can_not_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="recompute_every must be"):
        pendula.CoRNN(2, 4, recompute_every=0)
    with pytest.raises(ValueError, match="LinOSS draws one dropout mask for all times"):
        pendula.LinOSS(2, 4, dropout=0.5, recompute_every=3)
    with pytest.raises(ValueError, match="recompute_every is that of bptt"):
        Training(rule="readout", recompute_every=5)
    with pytest.raises(ValueError, match="recompute_every must be"):
        Training(recompute_every=-1)


def test_it_compiles_whole() -> None:
    layer = pendula.CoRNN(2, 4, recompute_every=3)
    x = torch.randn(10, 2, 2)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    wanted, found = layer(x)[0], compiled(x)[0]
    assert torch.allclose(found, wanted, atol=1e-6)
