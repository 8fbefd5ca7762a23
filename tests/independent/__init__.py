"""Every network once more: plain float64 loops, written from the spec sheets by eyes that had not seen the cells.

One sequence at a time, numpy only; the symbols are those of the sheets. `tests/conformance.py` compares them with the
layers; `test_oracles.py` compares them with the numbers that the sheets print.
"""
