"""Memory of the rules: P13 and oracle 12 of the spec sheet dfa.md. Every byte allocated is counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tests.learn.dfa.networks import random
from tests.learn.dfa.sheet import half_squared
from torch.profiler import ProfilerActivity, profile

from pendula import ModelSpec, Node
from pendula.learn.dfa import DFA
from pendula.learn.rule import BPTT, LearningRule
from pendula.tasks.base import Batch

# more than a stretch, each
SHORT, LONG = 128, 512


def peak(call: Callable[[], object]) -> int:
    """Bytes at the highest, above what stood before: what every allocation took, and what was given back by then."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert events
    now = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        highest = max(highest, now)
    return highest


def peaks(rule: LearningRule, network: str, pool: str = "last", units: int = 32) -> list[int]:
    """Of one pass over sequences of SHORT and of LONG steps; the input stands before."""
    found, new = [], replace(rule)
    for steps in (SHORT, LONG):
        model = random(ModelSpec(2, 3, (Node(network, units),), pool=pool))
        y = torch.randn(*([steps] if pool == "steps" else []), 4, 3, dtype=torch.float64)
        batch = Batch(torch.randn(steps, 4, 2, dtype=torch.float64), y)

        def once(model: torch.nn.Module = model, batch: Batch = batch) -> None:
            model.zero_grad(set_to_none=True)
            new(model, batch, half_squared, lambda total, **words: total.backward(**words))

        # what a first call sets up is not the pass's own
        once()
        model.zero_grad(set_to_none=True)
        found.append(peak(once))
    return found


CASES = [
    (DFA(time="local"), "CoRNN"),
    (DFA(time="broadcast"), "LSTM"),
    (DFA(time="discounted"), "GRU"),
    (DFA(time="kernel"), "CoRNN"),
    (DFA(time="kernel"), "FastRNN"),
    (DFA(time="trace"), "UnICORNN"),
    (DFA(time="windows", window=64), "CoRNN"),
]
EACH = pytest.mark.parametrize(("rule", "network"), CASES, ids=[f"{rule.time}-{network}" for rule, network in CASES])


@pytest.mark.parametrize("pool", ["last", "mean"])
@EACH
def test_peak_does_not_grow_with_time(rule: DFA, network: str, pool: str) -> None:
    short, long = peaks(rule, network, pool)
    assert long <= 1.05 * short


@EACH
def test_with_a_target_at_every_step_only_predictions_are_kept(rule: DFA, network: str) -> None:
    # predictions (T, B, C), their errors and what the loss makes of them are there at every step; states are not
    growth = []
    for units in (16, 32):
        short, long = peaks(rule, network, "steps", units)
        growth.append(long - short)
    assert growth[0] == growth[1]
    assert growth[0] <= 12 * 8 * (LONG - SHORT) * 4 * 3


@pytest.mark.parametrize("network", ["CoRNN", "LSTM", "UnICORNN"])
def test_measure_sees_what_backpropagation_keeps(network: str) -> None:
    # oracle 12: at least the 2 n T B numbers of the states
    short, long = peaks(BPTT(), network)
    assert long - short >= 8 * bptt(32, LONG - SHORT, 4, 2)
    assert long > 2.5 * short


def bptt(n: int, steps: int, batch: int, inputs: int) -> int:
    return 2 * n * steps * batch


def two_passes(n: int, steps: int, batch: int, inputs: int) -> int:
    return 4 * n * batch + steps


def full_traces(n: int, steps: int, batch: int, inputs: int) -> int:
    return 2 * batch * (2 * n * n + n * inputs + n)


def diagonal_traces(n: int, steps: int, batch: int, inputs: int) -> int:
    return 2 * batch * (3 * n + n * inputs)


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [
        ((128, 784, 120, 1), (24_084_480, 62_224, 7_925_760, 122_880)),
        ((256, 1000, 32, 10), (16_384_000, 33_768, 8_568_832, 212_992)),
    ],
)
def test_oracle_12_formulae(sizes: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    # the last of them against the traces themselves: test_oracle_unicornn.py
    assert tuple(f(*sizes) for f in (bptt, two_passes, full_traces, diagonal_traces)) == wanted
