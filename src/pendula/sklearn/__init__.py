"""scikit-learn's face: estimators of sequences for `cross_val_score`, `GridSearchCV` and pipelines."""

try:
    from pendula.sklearn.classifier import SequenceClassifier
    from pendula.sklearn.regressor import SequenceRegressor
except ModuleNotFoundError as error:
    raise ImportError(f"pendula.sklearn needs more packages ({error}): pip install 'pendula[train]'") from error

__all__ = ["SequenceClassifier", "SequenceRegressor"]
