"""`pendula bench`: how long the networks take against the same equations elsewhere, and never before they are equal."""

from pendula.bench.cases import CASES, Case
from pendula.bench.gpu_cases import GPU_CASES
from pendula.bench.run import bench

__all__ = ["CASES", "GPU_CASES", "Case", "bench"]
