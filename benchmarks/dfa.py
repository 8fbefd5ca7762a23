"""What one training step costs under learning rules: memory and time of the networks of docs/dfa.md.

    python benchmarks/dfa.py --out FILE [--steps 512 4096] [--networks CoRNN LSTM]

Peak memory: each case in a process of its own, resident memory at its highest in one training step, less that just
before it; the weights, the batch and whatever a step of 8 times loads stand before. Time: all rules of a network in
turn in one process, medians of three rounds, of the processor and of the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from pendula import Model, ModelSpec, Node
from pendula.bench.memory import peak_of
from pendula.bench.timing import conditions, interleave
from pendula.circumstances import circumstances
from pendula.learn.dfa import DFA, ReadoutOnly
from pendula.learn.rule import BPTT, LearningRule
from pendula.nets.checkpoint import write_whole
from pendula.papers import find
from pendula.tasks.base import Batch

BATCH, INPUTS, CLASSES, ROUNDS = 32, 9, 2, 3
# of these entries of the paper file stands the network: "HAR-2: recurrent networks under learning rules"
ENTRIES = {"CoRNN": "dfa/har2-cornn-bp", "LSTM": "dfa/har2-lstm-bp", "UnICORNN": "dfa/har2-unicornn-bp"}
PLAIN = "bptt, plain autograd"
RULES: dict[str, Callable[[], LearningRule]] = {
    "bptt": BPTT,
    PLAIN: BPTT,
    "kernel": lambda: DFA(time="kernel"),
    "trace": lambda: DFA(time="trace"),
    "broadcast": lambda: DFA(time="broadcast"),
    "local": lambda: DFA(time="local"),
    "windows of 64": lambda: DFA(time="windows", window=64),
    "readout": ReadoutOnly,
}
# "kernel" needs a cell that knows its response, "trace" one whose units see only themselves
LEFT_OUT = {"CoRNN": {"trace"}, "LSTM": {"kernel", "trace"}, "UnICORNN": {"kernel"}}


def rules_of(network: str) -> list[str]:
    return [name for name in RULES if name not in LEFT_OUT[network]]


def training_step(network: str, rule: str, steps: int) -> Callable[[], Any]:
    """One step of Adam on a batch of noise. "bptt" runs on the default scans, `PLAIN` on PyTorch's tape alone."""
    (entry,) = find([ENTRIES[network]])
    assert entry.experiment is not None
    chosen = entry.experiment.model
    plain = {"memory": "tape"} if rule == PLAIN and network == "UnICORNN" else {}
    node = Node(network, chosen.hidden_size, num_layers=chosen.num_layers, physics={**chosen.physics, **plain})
    torch.manual_seed(0)
    model = Model(
        ModelSpec(INPUTS, CLASSES, (node,), pool=chosen.pool, standardise=True),
        backend="reference" if rule == PLAIN else "auto",
    )
    batch = Batch(torch.randn(steps, BATCH, INPUTS), torch.randint(CLASSES, (BATCH,)))
    optimiser = torch.optim.Adam(model.parameters())
    learn = RULES[rule]()
    learn.prepare(model)

    def step() -> None:
        optimiser.zero_grad()
        learn(model, batch, lambda output, batch: cross_entropy(output, batch.y), lambda t, **w: t.backward(**w))
        optimiser.step()

    return step


def peak(network: str, rule: str, steps: int) -> int:
    """Bytes, measured in a new process."""
    words = [sys.executable, __file__, "--peak", network, rule, str(steps)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return int(done.stdout)


def peak_here(network: str, rule: str, steps: int) -> int:
    with conditions(1):
        # what a first step loads and sets up is not the step's own
        training_step(network, rule, 8)()
        return peak_of(training_step(network, rule, steps))


def measured(network: str, steps: int) -> list[dict[str, Any]]:
    """A row for each rule."""
    names = rules_of(network)
    with conditions(1):
        times = interleave({name: training_step(network, name, steps) for name in names}, ROUNDS)
    peaks = {name: peak(network, name, steps) for name in names}
    rows = []
    for name in names:
        ratios = {of: round(peaks[name] / peaks[of], 4) for of in ("bptt", PLAIN)}
        row = {"network": network, "steps": steps, "rule": name, "peak_bytes": peaks[name], "share_of": ratios}
        rows.append({**row, **times[name].to_dict()})
        print(_line(rows[-1]), flush=True)
    return rows


def _line(row: dict[str, Any]) -> str:
    shares = "  ".join(f"{share:7.3f}" for share in row["share_of"].values())
    return (
        f"{row['network']:9} T={row['steps']:5} {row['rule']:21} {row['peak_bytes'] / 1e6:8.1f} MB  {shares}"
        f"  {row['cpu_ms']:8.0f} ms of the processor  {row['wall_ms']:8.0f} ms"
    )


def main() -> None:
    words = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    words.add_argument("--out", type=Path)
    words.add_argument("--steps", type=int, nargs="+", default=[512, 4096])
    words.add_argument("--networks", nargs="+", default=list(ENTRIES), choices=list(ENTRIES))
    words.add_argument("--peak", nargs=3, metavar=("NETWORK", "RULE", "STEPS"), help=argparse.SUPPRESS)
    given = words.parse_args()
    if given.peak is not None:
        network, rule, steps = given.peak
        print(peak_here(network, rule, int(steps)))
        return
    before = os.getloadavg()
    print(f"share of the peak of: {', '.join(('bptt', PLAIN))}")
    cases = [row for network in given.networks for steps in given.steps for row in measured(network, steps)]
    facts = {
        "what": "benchmarks/dfa.py: one training step",
        "data": "standard normal numbers from seed 0",
        "batch": BATCH,
        "inputs": INPUTS,
        "classes": CLASSES,
        "input_bytes": {str(steps): 4 * steps * BATCH * INPUTS for steps in given.steps},
        **circumstances(),
        "load_average": {"before": before, "after": os.getloadavg()},
        "cases": cases,
    }
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(given.out, (json.dumps(facts, indent=2) + "\n").encode())
        print(given.out)


if __name__ == "__main__":
    main()
