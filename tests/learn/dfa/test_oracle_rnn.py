"""Oracle 3 of the spec sheet dfa.md: the rules R0 to R10 in a plain recurrent network."""

from __future__ import annotations

import pytest
import torch
from tests.learn.dfa.recurrent import B_R, ELMAN, READOUT, WEIGHTS, B, V, along_time, by_loop, elman, elman_batch
from tests.learn.dfa.sheet import backpropagated, degrees, gradients, learned, numbers, same, with_feedback
from tests.tolerance import decimals
from torch import Tensor
from torch.testing import assert_close

from pendula.learn.dfa import DFA

# grad W, row by row
TABLE = {
    "R0": (
        (0.3975929386, 0.1230086845, 0.0043237138),
        (0.1414804229, -0.2385273261, 0.3523353236),
        (-0.1173004098, -0.0677734958, 0.0413942788),
    ),
    "R1": (
        (-0.489668114, 0.2159771522, -0.4581052748),
        (0.3449216306, -0.4725308168, 0.7346324349),
        (-0.0911539756, 0.2069872678, -0.3376042508),
    ),
    "R2": (
        (-0.5057897729, 0.2829346708, -0.5676112952),
        (0.3166032676, -0.3979635485, 0.6066415512),
        (-0.1204088842, 0.2361363597, -0.3982336984),
    ),
    "R3": (
        (-0.4508914039, 0.3312136497, -0.6078060924),
        (0.3428725444, -0.5148822501, 0.7967603318),
        (-0.0801272631, 0.1441433271, -0.2372175283),
    ),
    "R6": (
        (-0.4704414816, 0.246260449, -0.4921799575),
        (0.3051060873, -0.4183494929, 0.6304221802),
        (-0.0579183699, 0.1062300896, -0.1675901021),
    ),
}
LAST = {
    "R0": (
        (0.0488667515, -0.0700414999, 0.0897579764),
        (0.1488300602, -0.0906203614, 0.1354743229),
        (-0.007759867, 0.0145273333, -0.0178279993),
    ),
    "R4": (
        (-0.4675824795, 0.0682969879, -0.224431211),
        (0.4402583181, -0.0841204389, 0.2094525374),
        (-0.1180221591, -0.0242431108, -0.0075355239),
    ),
}


def rule(name: str, feedback: Tensor = B) -> DFA:
    if name == "R2":
        return with_feedback(along_time("fa", feedback), {"layer0 back in time": B_R})
    words = {"R1": {"time": "bptt"}, "R3": {"time": "local"}, "R4": {"time": "broadcast"}}
    return along_time(**words.get(name, {"time": "discounted", "discount": 0.5}), feedback=feedback)


def by(name: str, pool: str) -> dict[str, Tensor]:
    """Gradients by the sheet's names."""
    model, batch = elman(pool), elman_batch(pool)
    found = backpropagated(model, batch) if name == "R0" else gradients(rule(name), model, batch)
    return {short: found[long] for short, long in ELMAN.items()}


@pytest.mark.parametrize(("pool", "loss"), [("steps", 0.8660377585964946), ("last", 0.11547598203404072)])
def test_forward_pass_and_loss(pool: str, loss: float) -> None:
    model, batch = elman(pool), elman_batch(pool)
    output, state = model(batch.x)
    assert_close(state["layer0"].h.flatten(), numbers(0.5083264601, -0.3174778913, 0.9113841041), **decimals(10))
    e = output.view(-1, 2)[-1] - batch.y.view(-1, 2)[-1]
    assert_close(e, numbers(0.410430145, 0.2499981203), **decimals(10))
    for name in ("R1", "R3"):
        assert_close(learned(rule(name), model, batch)[0], numbers(loss), rtol=1e-14, atol=0.0)


@pytest.mark.parametrize("name", TABLE)
def test_gradient_of_the_recurrent_weights_with_a_target_at_every_step(name: str) -> None:
    assert_close(by(name, "steps")["W"], numbers(TABLE[name]), **decimals(10))


@pytest.mark.parametrize("name", LAST)
def test_gradient_of_the_recurrent_weights_with_one_target(name: str) -> None:
    assert_close(by(name, "last")["W"], numbers(LAST[name]), **decimals(10))


@pytest.mark.parametrize(
    ("name", "pool", "wanted"),
    [
        ("R0", "steps", (-1.8006049518, 0.292227959, 0.8027620606)),
        ("R3", "steps", (0.3693784735, 0.429809307, -0.4857950094)),
        ("R4", "last", (1.5878955993, -1.5471058321, 0.6719720531)),
    ],
)
def test_gradient_of_the_bias(name: str, pool: str, wanted: tuple[float, ...]) -> None:
    assert_close(by(name, pool)["b"], numbers(*wanted), **decimals(10))


def test_gradient_of_the_input_weights_by_broadcast() -> None:
    rows = [[0.3511127168, 0.0058377323], [-0.206372983, 0.0125950956], [0.0280562163, 0.1913455316]]
    assert_close(by("R4", "last")["U"], numbers(rows), **decimals(10))


@pytest.mark.parametrize(
    ("name", "pool", "wanted"),
    [
        ("R3", "steps", {"W": 68.9876, "U": 59.7288, "b": 128.6674}),
        ("R6", "steps", {"W": 73.4272, "U": 61.0881, "b": 153.8011}),
        ("R4", "last", {"W": 72.9461, "U": 91.3757, "b": 52.7982}),
        ("R1", "steps", {"W": 72.6276}),
        ("R2", "steps", {"W": 77.5659}),
    ],
)
def test_angles_to_backpropagation_through_time(name: str, pool: str, wanted: dict[str, float]) -> None:
    found, true = by(name, pool), by("R0", pool)
    for short, angle in wanted.items():
        assert degrees(found[short], true[short]) == pytest.approx(angle, abs=5.1e-5)


@pytest.mark.parametrize("name", ["R1", "R2", "R3", "R6"])
def test_readout_has_its_true_gradient(name: str) -> None:
    model, batch = elman("steps"), elman_batch("steps")
    found, true = gradients(rule(name), model, batch), backpropagated(model, batch)
    assert_close(found[READOUT], true[READOUT], rtol=0.0, atol=1e-15)


def test_local_rule_with_the_transposed_readout_is_autograd_without_the_past() -> None:
    model, batch = elman("steps"), elman_batch("steps")
    cell = model.layers["layer0"].cells[0]
    wanted = by_loop(model, batch, lambda state, d: cell.step((state[0].detach(),), d))
    same(gradients(rule("R3", V.T), model, batch), wanted, atol=4e-16)


def test_discounted_rule_is_the_causal_trace() -> None:
    # P9: P_t = lambda P_(t-1) + phi'(a_t) h_(t-1)^T, grad W = sum_t diag(B e_t) P_t, and so for U and b
    model, batch = elman("steps"), elman_batch("steps")
    found = gradients(rule("R6"), model, batch)
    h, W, U, b = torch.zeros(3, dtype=torch.float64), *WEIGHTS.values()
    traces, wanted = torch.zeros(3, 6, dtype=torch.float64), torch.zeros(3, 6, dtype=torch.float64)
    for x, y in zip(batch.x[:, 0], batch.y[:, 0], strict=True):
        before, h = h, torch.tanh(W @ h + U @ x + b)
        seen = torch.cat((before, x, torch.ones(1, dtype=torch.float64)))
        traces = 0.5 * traces + (1 - h**2).unsqueeze(1) * seen
        wanted += (B @ (V @ h - y)).unsqueeze(1) * traces
    got = torch.cat((found[ELMAN["W"]], found[ELMAN["U"]], found[ELMAN["b"]].unsqueeze(1)), 1)
    assert_close(got, wanted, rtol=0.0, atol=1e-15)


@pytest.mark.parametrize("pool", ["steps", "last", "mean"])
def test_discount_zero_is_the_local_rule(pool: str) -> None:
    model, batch = elman(pool), elman_batch(pool)
    found = gradients(along_time("discounted", B, discount=0.0), model, batch)
    same(found, gradients(along_time("local", B), model, batch), rtol=0.0, atol=0.0)


@pytest.mark.parametrize("pool", ["steps", "last", "mean"])
def test_discount_one_is_broadcast(pool: str) -> None:
    model, batch = elman(pool), elman_batch(pool)
    found = gradients(along_time("discounted", B, discount=1.0), model, batch)
    same(found, gradients(along_time("broadcast", B), model, batch))


def lagged(model: object, batch: object) -> dict[str, Tensor]:
    """The maps by lag that make "lags" exact for one sequence: (V D_T W ... D_(t+1) W)^T."""
    h = model.layers["layer0"](batch.x)[0][:, 0].detach()
    maps, chain = {"layer0": V.T}, V
    for lag in range(1, len(h)):
        chain = chain @ torch.diag(1 - h[len(h) - lag] ** 2) @ WEIGHTS["W"]
        maps[f"layer0 lag {lag}"] = chain.T
    return maps


def test_exact_map_for_each_lag_is_backpropagation_through_time() -> None:
    # R10 through R5; P4
    model, batch = elman("last"), elman_batch("last")
    found = gradients(with_feedback(along_time("lags", B), lagged(model, batch)), model, batch)
    same(found, backpropagated(model, batch), rtol=0.0, atol=1e-16)


def test_one_map_for_all_lags_is_broadcast() -> None:
    model, batch = elman("last"), elman_batch("last")
    maps = {"layer0": B, **{f"layer0 lag {lag}": B for lag in range(1, 4)}}
    found = gradients(with_feedback(along_time("lags", B), maps), model, batch)
    same(found, gradients(along_time("broadcast", B), model, batch))


def test_each_lag_draws_a_map_of_its_own() -> None:
    rule, model, batch = DFA(time="lags"), elman("last"), elman_batch("last")
    gradients(rule, model, batch)
    assert sorted(rule.tensors()) == ["layer0", "layer0 lag 1", "layer0 lag 2", "layer0 lag 3"]
    assert not torch.equal(rule.tensors()["layer0 lag 1"], rule.tensors()["layer0 lag 2"])


def test_errors_sent_back_through_the_transposed_weights_are_those_of_a_fixed_readout() -> None:
    # R2 with B_r = W^T is R1
    model, batch = elman("steps"), elman_batch("steps")
    rule_2 = with_feedback(along_time("fa", B), {"layer0 back in time": WEIGHTS["W"].T})
    same(gradients(rule_2, model, batch), gradients(rule("R1"), model, batch))
