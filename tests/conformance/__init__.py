"""Every network against an independent float64 loop, with its gradients, order of convergence and invariants.

`python -m tests.conformance` measures all rows, writes docs/conformance.md and fails where a tolerance does;
`tests/test_conformance.py` runs the same rows. The loops stand in `tests/independent`.
"""
