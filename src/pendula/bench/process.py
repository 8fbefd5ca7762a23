"""A process of its own for each case: the threads of every library are set before it loads, and memory starts afresh.

`main` runs in that process: it reads a job as JSON and prints an answer for each of its cases.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from pendula.bench.cases import Case

MARK = "pendula bench: "
"""Before each answer: what a library prints on its own is not one."""


def ask(job: str, cases: Sequence[Case], *, limit: float | None = None, **options: Any) -> list[dict[str, Any]]:
    """Do a job for cases with the same threads, in one process. Those it dies at get {"refused": sentence}.

    `limit`: seconds after which the process is ended, and all of them are refused.
    """
    words = json.dumps({"job": job, "cases": [case.to_dict() for case in cases], **options})
    try:
        done = subprocess.run(
            [sys.executable, "-c", "from pendula.bench.process import main; main()"],
            input=words,
            capture_output=True,
            text=True,
            env={**os.environ, **environment(cases[0].threads)},
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        return [_refused(case, f"its process was ended after {limit:.0f} s, without an answer") for case in cases]
    answers = [json.loads(line.removeprefix(MARK)) for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode != 0:
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        code = f"signal {-done.returncode}" if done.returncode < 0 else f"code {done.returncode}"
        answers += [_refused(case, f"its process ended with {code}: {why}") for case in cases[len(answers) :]]
    return answers


def _refused(case: Case, why: str) -> dict[str, Any]:
    return {"case": case.to_dict(), "title": case.title(), "refused": why}


def environment(threads: int) -> dict[str, str]:
    """What JAX reads when it starts, to use that many threads; it can't be told later, as PyTorch can.

    And what Triton reads: kernels run on the GPU.
    """
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
    return {"NPROC": str(threads), "XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu", "TRITON_INTERPRET": "0"}


def main() -> None:
    """Read a job, do it, print the answer."""
    from pendula.bench.contestants import Absent
    from pendula.bench.measure import measure
    from pendula.bench.memory import peak_of_training

    given = json.loads(sys.stdin.read())
    for case in map(Case.from_dict, given["cases"]):
        if given["job"] == "time":
            options = {name: given[name] for name in ("repetitions", "compiles", "seconds", "left")}
            answer = measure(case, **options)
        else:
            try:
                answer = {"bytes": peak_of_training(case, given["who"])}
            except Absent as error:
                answer = {"absent": str(error)}
        print(MARK + json.dumps(answer), flush=True)
