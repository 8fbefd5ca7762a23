"""The fused scans on a GPU beside PyTorch's own: `pendula bench --device cuda --compile`, within seven minutes.

    python benchmarks/gpu.py [CASE ...] [--seconds 420]

`make gpu` runs the tests before it. What is timed, and what must be equal first: `src/pendula/bench/gpu_cases.py` and
`gpu.py`. A new JSON file in results/bench/ keeps everything that was measured; the summary is printed last.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pendula.bench import GPU_CASES
from pendula.cli import main as pendula

RESULTS = Path(__file__).parents[1] / "results" / "bench"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(GPU_CASES)}; all when none is named")
    parser.add_argument("--seconds", type=float, default=420.0, help="no round begins later than that")
    asked = parser.parse_args()
    words = ["bench", "--device", "cuda", "--compile", "--budget", f"{asked.seconds}s", "--out", str(RESULTS)]
    return pendula([*words, *(["--case", *asked.cases] if asked.cases else [])])


if __name__ == "__main__":
    sys.exit(main())
