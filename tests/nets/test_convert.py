"""Models from the weights of the authors' scripts: LEM and uRNN (coRNN and UnICORNN stand beside their oracles)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.testing import assert_close

import pendula
from tests import tolerance
from tests.cells.sheet import det


def lem_authors() -> dict[str, Tensor]:
    """baselines.md B8, with a read-out."""
    return {
        "rnn.inp2hid.weight": det((12, 2), 0.1, 0.5),
        "rnn.inp2hid.bias": det((12,), 0.2, 0.1),
        "rnn.hid2hid.weight": det((9, 3), 0.3, 0.5),
        "rnn.hid2hid.bias": det((9,), 0.4, 0.1),
        "rnn.transform_z.weight": det((3, 3), 0.5, 0.5),
        "rnn.transform_z.bias": det((3,), 0.6, 0.1),
        "classifier.weight": det((4, 3), 0.9, 0.5),
        "classifier.bias": det((4,), 1.0, 0.1),
    }


def test_a_lem_of_the_authors_gives_the_numbers_of_the_sheet() -> None:
    saved = lem_authors()
    model = pendula.model_from_authors(saved, "LEM", dt=0.5)
    start = {"layer0": model.layers["layer0"].cells[0].State(det((1, 1, 3), 0.7, 0.4), det((1, 1, 3), 0.8, 0.4))}
    x = torch.tensor([[0.3, -0.6], [0.6, -1.2]], dtype=torch.float64).unsqueeze(1)
    with torch.no_grad():
        logits, state = model(x, start)
    y = torch.tensor([0.109199134245767, 0.193642898542199, 0.411161580187829], dtype=torch.float64)
    assert_close(state["layer0"].y[0, 0], y, **tolerance.PRINTED_16)
    assert_close(logits[0], linear(y, saved["classifier.weight"], saved["classifier.bias"]), **tolerance.PRINTED_16)


def urnn_authors() -> dict[str, Tensor]:
    """urnn.md U7 in the layout of the authors' code: rows are vectors, real and imaginary parts side by side."""
    v = torch.stack([torch.cat((det((8,), p, 1.0), -det((8,), p + 0.1, 1.0))) for p in (0.2, 0.4)])
    return {
        "V": torch.cat((det((8, 2), 0.8, 0.3), det((8, 2), 0.9, 0.3))).T,
        "U": det((3, 16), 1.3, 0.3).T,
        "hidden_bias": det((8,), 1.1, 0.05),
        "reflection": v,
        "out_bias": det((3,), 1.4, 0.1),
        "theta": det((3, 8), 0.1, 3.0),
        "h_0": torch.cat((det((8,), 0.6, 0.5), det((8,), 0.7, 0.5))).reshape(1, 16),
        "index_permute": torch.tensor([(5 * j + 3) % 8 for j in range(8)]),
    }


def test_a_urnn_of_the_authors_gives_the_numbers_of_the_sheet() -> None:
    # U7 has the exact modReLU; the authors' own has eps = 1e-5, which is the default here
    model = pendula.model_from_authors(urnn_authors(), "URNN", eps=0.0)
    with torch.no_grad():
        logits, _ = model(det((5, 2), 1.2, 1.0).unsqueeze(1))
    expected = torch.tensor([-0.19270505227099, 0.0956418667640612, 0.21188397791513], dtype=torch.float64)
    assert_close(logits[0], expected, **tolerance.PRINTED_16)
    assert pendula.model_from_authors(urnn_authors(), "URNN").spec.nodes[0].physics["eps"] == 1e-5


@pytest.mark.parametrize("key", ["U", "out_bias", "theta"])
def test_weights_of_a_urnn_that_lack_something_are_refused(key: str) -> None:
    saved = urnn_authors()
    del saved[key]
    with pytest.raises(ValueError, match=key):
        pendula.model_from_authors(saved, "URNN")


def test_a_network_without_a_converter_is_refused() -> None:
    with pytest.raises(ValueError, match="network must be one of CoRNN, UnICORNN, LEM, URNN, got 'LSTM'"):
        pendula.model_from_authors({}, "LSTM")
