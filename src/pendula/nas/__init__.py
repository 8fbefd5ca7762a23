"""`pendula search`: neural architecture search over generators of networks, on Optuna and BoTorch ([search] extra)."""

from pendula._check import DataError

try:
    import networkx as networkx
    import optuna as optuna
except ImportError as error:
    raise DataError(f"a search needs Optuna and networkx ({error}): pip install 'pendula[search]'") from error
