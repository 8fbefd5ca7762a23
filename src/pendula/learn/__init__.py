"""How a model learns: rules that leave gradients, and the loop that uses them (`pendula.learn.fit`)."""

from pendula.learn.rule import BPTT, LearningRule

__all__ = ["BPTT", "LearningRule"]
