"""The compiled scans against the reference scan: every output and gradient, odd sizes, strides, compilers."""

from __future__ import annotations

import itertools

import mpmath
import pytest
import torch
import torch._dynamo.testing
from torch import Tensor
from torch.testing import assert_close

import pendula
from pendula.cells import CoRNNCell, LEMCell
from pendula.ops import cornn, lem, native, odernn, unicornn
from tests import tolerance
from tests.contracts.layer import weigh
from tests.ops.scan_cases import (
    EVERY_NETWORK,
    NETWORKS,
    ONE_OF_EACH,
    SIZES,
    arguments,
    case,
    everything,
    made,
)

pytestmark = pytest.mark.skipif(isinstance(native.load(), str), reason=f"{native.load()}")


@EVERY_NETWORK
@pytest.mark.parametrize(("spans", "lengths"), list(itertools.product((False, True), (False, True))))
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.usefixtures("scratch_is_nan")
def test_numbers_and_gradients_are_those_of_the_reference(
    network: str, size: tuple[int, int, int, int], spans: bool, lengths: bool, instruction_set: str
) -> None:
    steps, batch, units, inputs = size
    cell = made(network, inputs, units)
    given = case(cell, steps, batch, spans=spans, lengths=lengths)
    reference, fused = everything(cell, given, "reference"), everything(cell, given, "fused")
    assert reference.keys() == fused.keys()
    for name, expected in reference.items():
        error = float((fused[name] - expected).abs().max())
        assert error <= 1e-12 * max(1.0, float(expected.abs().max())), (name, error)


@pytest.mark.parametrize("network", [name for name in NETWORKS if not name.startswith("UnICORNN")])
@pytest.mark.parametrize("steps", [8, 9, 63])
@pytest.mark.usefixtures("scratch_is_nan")
def test_chunks_of_time_change_nothing(network: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for scan in (cornn, lem, odernn):
        monkeypatch.setattr(scan, "CACHED", 1)
    cell = made(network, 3, 37)
    given = case(cell, steps, 5, spans=True, lengths=True)
    reference, fused = everything(cell, given, "reference"), everything(cell, given, "fused")
    assert_close(fused, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("network", [name for name in NETWORKS if name.startswith("UnICORNN")])
@pytest.mark.parametrize("inputs", [2, 20])
@pytest.mark.usefixtures("scratch_is_nan")
def test_wide_layers_of_unicornn_take_some_sequences_after_the_others(network: str, inputs: int) -> None:
    # 6 of the 13 at a time, and 42 of the 90 steps until gradients are summed
    cell = made(network, inputs, 1400)
    given = case(cell, 90, 13, spans=True, lengths=True)
    reference, fused = everything(cell, given, "reference"), everything(cell, given, "fused")
    assert_close(fused, reference, rtol=1e-11, atol=1e-11)


@EVERY_NETWORK
def test_single_precision_is_as_close_to_double_as_the_reference(network: str, instruction_set: str) -> None:
    cell, narrow = made(network, 3, 37), made(network, 3, 37, torch.float32)
    narrow.load_state_dict(cell.state_dict())
    given = case(cell, 63, 5, spans=True, lengths=True)
    exact = everything(cell, given, "reference")
    errors = {}
    for backend in ("reference", "fused"):
        found = everything(narrow, given, backend)
        errors[backend] = max(float((found[k] - v).norm() / v.norm().clamp(min=1e-6)) for k, v in exact.items())
    assert errors["fused"] < max(2 * errors["reference"], 1e-5)


@EVERY_NETWORK
def test_under_autocast_nothing_is_narrow_but_the_input(network: str, instruction_set: str) -> None:
    if native.narrows():
        # with this set products are: test_narrow.py
        native.use_instruction_set(native.instruction_sets()[-1])
    cell = made(network, 3, 5, torch.float32)
    x = torch.randn(20, 4, 3)
    expected = pendula.scan(cell, x.bfloat16().float(), backend="fused")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs, final = pendula.scan(cell, x.bfloat16(), backend="fused")
        weigh(outputs).backward()
    assert_close((outputs, final), expected, **tolerance.FLOAT32)
    assert {p.grad.dtype for p in cell.parameters()} == {torch.float32}


@EVERY_NETWORK
@pytest.mark.parametrize("seed", range(12))
def test_any_shapes_strides_and_lengths_give_the_numbers_of_the_reference(network: str, seed: int) -> None:
    torch.manual_seed(seed)
    steps, batch, units, inputs = (int(torch.randint(1, high, ())) for high in (90, 12, 70, 90))
    cell = made(network, inputs, units)
    given = case(cell, steps, batch, spans=seed % 2 == 1, lengths=seed % 3 == 1)
    # the same numbers with other strides: a transposed batch, a sliced feature axis, an expanded state
    wide = torch.randn(batch, steps, inputs + 3, dtype=torch.float64)
    given["x"] = wide.transpose(0, 1)[:, :, 1 : inputs + 1]
    given["state"] = [s[:1].expand(batch, -1) for s in given["state"]]
    reference, fused = everything(cell, given, "reference"), everything(cell, given, "fused")
    for name, expected in reference.items():
        assert_close(fused[name], expected, rtol=1e-10, atol=1e-12)


@EVERY_NETWORK
def test_one_sequence_alone_has_the_bits_that_it_has_in_a_batch(network: str) -> None:
    cell = made(network, 3, 37, torch.float32)
    x = torch.randn(20, 9, 3)
    together, _ = pendula.scan(cell, x, backend="fused")
    for b in range(9):
        alone, _ = pendula.scan(cell, x[:, b : b + 1], backend="fused")
        assert_close(alone[:, 0], together[:, b], **tolerance.EXACT)


@ONE_OF_EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("units", [80, 128])
def test_results_too_large_for_the_caches_are_the_same(
    network: str, dtype: torch.dtype, units: int, instruction_set: str
) -> None:
    # 4 MiB and more, which AVX-512 writes past the caches; whole panels, and a part of one
    cell = made(network, 3, units, dtype)
    given = case(cell, (1 << 22) // (40 * units * dtype.itemsize) + 1, 40, spans=False, lengths=True)
    found = everything(cell, given, "fused")
    if dtype == torch.float64:
        expected = everything(cell, given, "reference")
        assert_close(found, expected, rtol=1e-10, atol=1e-12)
    few = {"x": given["x"][:, :5], "lengths": given["lengths"][:5], "timespans": None}
    alone = everything(cell, {**few, "state": [s[:5] for s in given["state"]]}, "fused")
    for name, values in alone.items():
        if name.startswith(("outputs", "final")):
            assert torch.equal(found[name][:, :5] if name == "outputs" else found[name][:5], values)


@EVERY_NETWORK
@pytest.mark.parametrize(("spans", "lengths"), [(False, False), (True, True)])
# PyTorch 2.15 warns of what its own check reads
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_the_operator_passes_pytorchs_own_check(network: str, spans: bool, lengths: bool) -> None:
    operator, given = arguments(network, spans=spans, lengths=lengths)
    torch.library.opcheck(operator, given)


def test_the_operator_that_keeps_tanh_passes_pytorchs_own_check() -> None:
    operator, given = arguments("UnICORNN", spans=True, lengths=True)
    torch.library.opcheck(operator, (*given[:-2], unicornn.TANH, 1))


@ONE_OF_EACH
def test_a_wrong_size_never_reaches_a_pointer(network: str) -> None:
    operator, given = arguments(network, spans=True, lengths=True)
    for place, value in enumerate(given):
        if not isinstance(value, Tensor) or place == 0:
            continue
        for spoilt in (value[:-1], value.float() if value.is_floating_point() else value.int()):
            with pytest.raises((ValueError, RuntimeError), match=r"_scan needs \w+ \(.*got"):
                operator(*given[:place], spoilt, *given[place + 1 :])


@ONE_OF_EACH
def test_a_layer_compiles_whole_and_once_for_all_lengths(network: str) -> None:
    layer = pendula.LAYERS["CoRNN" if network == "coRNN" else network](3, 5)
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda x: layer(x)[0], backend=counter, fullgraph=True, dynamic=True)
    counts = []
    # the last two beyond one chunk, and beyond two
    for steps in (5, 9, 600, 1100):
        x = torch.randn(steps, 4, 3)
        assert_close(compiled(x), layer(x)[0], **tolerance.FLOAT32)
        counts.append(counter.frame_count)
    assert counts == counts[:1] * 4


@pytest.mark.parametrize("network", NETWORKS)
def test_a_layer_works_under_activation_checkpointing(network: str) -> None:
    from torch.utils.checkpoint import checkpoint

    kind, physics = NETWORKS[network]
    layer = pendula.LAYERS[kind.__name__.removesuffix("Cell")](3, 8, backend="fused", **physics)
    x = torch.randn(20, 2, 3, requires_grad=True)
    plain = torch.autograd.grad(layer(x)[0].sum(), (x, *layer.parameters()))
    again = checkpoint(lambda x: layer(x)[0], x, use_reentrant=False)
    found = torch.autograd.grad(again.sum(), (x, *layer.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))


@ONE_OF_EACH
def test_a_layer_is_exported_for_any_length_and_batch(network: str) -> None:
    layer = pendula.LAYERS["CoRNN" if network == "coRNN" else network](3, 5).eval()
    steps, batch = torch.export.Dim("steps", min=2, max=4096), torch.export.Dim("batch", min=2, max=4096)
    with torch.no_grad():
        program = torch.export.export(layer, (torch.randn(6, 4, 3),), dynamic_shapes=({0: steps, 1: batch},))
        for size in ((5, 2), (100, 7)):
            x = torch.randn(*size, 3)
            assert_close(program.module()(x)[0], layer(x)[0], **tolerance.FLOAT32)


@pytest.mark.parametrize(("spans", "lengths"), list(itertools.product((False, True), (False, True))))
@pytest.mark.usefixtures("scratch_is_nan")
def test_lems_steps_may_ask_for_a_gradient_each(spans: bool, lengths: bool, instruction_set: str) -> None:
    cell = LEMCell(5, 37, dt=torch.linspace(0.1, 0.9, 37), dtype=torch.float64)
    cell.dt.requires_grad_()
    given = case(cell, 63, 7, spans=spans, lengths=lengths)
    found = []
    for backend in ("reference", "fused"):
        cell.dt.grad = None
        found.append(everything(cell, given, backend) | {"by dt": cell.dt.grad})
    assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_tanh_is_right_to_three_units_in_the_last_place(dtype: torch.dtype, instruction_set: str) -> None:
    # a step of length 1 from rest shows the tanh of the force
    cell = CoRNNCell(1, 1, dt=1.0, gamma=0.5, epsilon=0.5, dtype=dtype)
    with torch.no_grad():
        for name, parameter in cell.named_parameters():
            parameter.fill_(name == "V")
    count = 300_000 if dtype == torch.float32 else 5_000
    spread = torch.cat((torch.logspace(-30, 0, 500), torch.linspace(1e-3, 3, count), torch.linspace(3, 25, 500)))
    x = torch.cat((spread, -spread)).to(dtype)
    found = pendula.scan(cell, x.view(1, -1, 1), backend="fused")[0].flatten()
    if dtype == torch.float32:
        errors = found.double() - torch.tanh(x.double())
    else:
        exact = [mpmath.tanh(mpmath.mpf(value)) for value in x.tolist()]
        off = [float(mpmath.mpf(f) - e) for f, e in zip(found.tolist(), exact, strict=True)]
        errors = torch.tensor(off, dtype=dtype)
    units = torch.nextafter(found.abs(), torch.tensor(2.0, dtype=dtype)) - found.abs()
    assert (errors.abs() / units).max() <= 3
    assert found.abs().max() == 1
    special = torch.tensor([torch.inf, -torch.inf, torch.nan, 0.0], dtype=dtype)
    outputs = pendula.scan(cell, special.view(1, -1, 1), backend="fused")[0].flatten()
    assert_close(outputs, torch.tensor([1.0, -1.0, torch.nan, 0.0], dtype=dtype), rtol=0, atol=0, equal_nan=True)


def test_small_gates_of_lem_keep_their_digits(instruction_set: str) -> None:
    cell = LEMCell(1, 4)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        for logit in (-3.0, -9.0, -18.0, -60.0):
            cell.b[:8], cell.b[8:] = logit, 1.0
            outputs, _ = pendula.scan(cell, torch.zeros(20, 1, 1), backend="fused")
            expected, _ = pendula.scan(cell, torch.zeros(20, 1, 1), backend="reference")
            assert_close(outputs, expected, rtol=1e-6, atol=1e-37)


def test_lem_without_biases_has_the_gradients_of_the_reference() -> None:
    cell = LEMCell(5, 37, bias=False, dtype=torch.float64)
    given = case(cell, 20, 7, spans=False, lengths=False)
    assert_close(everything(cell, given, "fused"), everything(cell, given, "reference"), rtol=1e-12, atol=1e-12)


def test_what_lem_kept_is_checked_before_it_is_read() -> None:
    _, (x, y0, z0, W, W_y, V, b, dt, tau, lengths, _) = arguments("LEM", spans=True, lengths=True)
    y, y_last, z_last, gates, kept = torch.ops.pendula.lem_scan(x, y0, z0, W, W_y, V, b, dt, tau, lengths, True)
    given = (y, y_last, z_last, x, y0, z0, W, W_y, V, dt, tau, lengths, y, gates, kept, True, True)
    for place in (0, 1, 2, 12, 13, 14):
        spoilt = given[place][:-1] if given[place].numel() else given[place].new_zeros(1, 4, 5)
        with pytest.raises((ValueError, RuntimeError), match=r"lem_scan_backward needs \w+ \(.*got"):
            torch.ops.pendula.lem_scan_backward(*given[:place], spoilt, *given[place + 1 :])


def test_an_unknown_instruction_set_is_refused() -> None:
    with pytest.raises(ValueError, match=r"instruction set must be one of .*baseline, got 'mmx'"):
        native.use_instruction_set("mmx")
