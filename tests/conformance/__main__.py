"""`python -m tests.conformance`: measure all rows, write the page, fail where a tolerance does."""

from __future__ import annotations

import sys

import torch

from tests.conformance.cases import CASES
from tests.conformance.measure import measure
from tests.conformance.page import PAGE, written


def main() -> int:
    torch.set_num_threads(1)
    rows, failed = [], 0
    for case in CASES:
        row = measure(case)
        rows.append(row)
        failures = row.failures()
        failed += bool(failures)
        print(f"{case}: {'; '.join(failures) or 'holds'}", flush=True)
    PAGE.write_text(written(rows))
    print(f"{PAGE}: {len(rows)} rows, {failed} fail")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
