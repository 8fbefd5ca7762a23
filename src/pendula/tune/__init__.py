"""`pendula tune`: sweeps over the settings of an experiment, on Optuna (the [tune] extra)."""

from pendula._check import DataError

try:
    import optuna as optuna
except ImportError as error:
    raise DataError(f"sweeps run on Optuna ({error}): pip install 'pendula[tune]'") from error
