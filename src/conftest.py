"""Doctests: the GPU's kernels can be imported only where Triton is, which is optional."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("triton") else ["pendula/ops/gpu/*.py"]
