"""Every tolerance of the tests, with its reason. Use: ``torch.testing.assert_close(got, expected, **EXACT)``."""

EXACT = {"rtol": 0.0, "atol": 0.0}
"""The same operations in the same order on the same numbers: bit for bit."""

ROUNDING = {"rtol": 1e-12, "atol": 1e-14}
"""The same mathematics in another order, float64: some hundred roundings of 1e-16 on numbers of order one."""

ORACLE = {"rtol": 1e-12, "atol": 0.0}
"""Oracles O1 to O4, printed to 16 digits. Spec sheet cornn.md, section 6: safe, a long-double run differs by 2e-16."""

PRINTED_16 = {"rtol": 1e-12, "atol": 1e-15}
"""A number printed to 15 or 16 digits that is itself the end of a short float64 run."""

PRINTED_10 = {"rtol": 1e-9, "atol": 0.0}
"""A number printed to 10 digits: half a unit of the last one is up to 5e-10 of it."""

PRINTED_7 = {"rtol": 5e-7, "atol": 0.0}
"""A number printed to 7 digits: half a unit of the last one is up to 5e-7 of it."""

PRINTED_4 = {"rtol": 5e-4, "atol": 0.0}
"""A number printed to 4 digits."""

PRINTED_3 = {"rtol": 5e-3, "atol": 0.0}
"""A number printed to 3 digits."""


def decimals(places: int) -> dict[str, float]:
    """A number printed to that many places after the point: half a unit of the last one, and rounding."""
    return {"rtol": 1e-12, "atol": 0.5000001 * 10.0**-places}


JACOBIAN = {"rtol": 0.0, "atol": 1e-14}
"""Entries of a step Jacobian: a handful of operations on numbers of order one, printed to 15 places."""

DETERMINANT = {"rtol": 1e-9, "atol": 0.0}
"""The logarithm of a product of 200 determinants, printed to 10 digits."""

VARIANT_IDENTITY = {"rtol": 0.0, "atol": 1e-15}
"""O10: the sheet measured 5.6e-17 over 20 steps on states of order 0.1, and allows 1e-15."""

LAYOUT = {"rtol": 0.0, "atol": 1e-15}
"""O15: one product over a concatenation against three products; the sheet measured 2.8e-17."""

BOUND = 1e-12
"""Relative slack of a proved bound: round-off only."""

OBSERVED_ORDER = 0.05
"""How far the measured order of a first-order method may be from 1 at the steps used: the next term is of order dt."""

FLOAT32 = {"rtol": 2e-4, "atol": 2e-5}
"""float32 against float64 over few steps: 6e-8 per operation, times some tens of operations and the sums' condition."""

BFLOAT16_PRODUCTS = {"rtol": 5e-2, "atol": 5e-2}
"""Products in bfloat16 (relative error 4e-3) feeding bounded forces for few steps; the state itself stays float32."""

LYAPUNOV = 0.1
"""Sheet 4.4 prints +0.42 and +0.37 from 110 000 steps; a run of a tenth of that scatters by some hundredths."""
