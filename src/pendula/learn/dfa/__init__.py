"""Direct feedback alignment for networks of maps and recurrent networks, and its hybrids with backpropagation."""

from pendula.learn.dfa.alignment import Alignment, Angle, alignment_report
from pendula.learn.dfa.feedback import FeedbackSpec
from pendula.learn.dfa.rule import DFA, ReadoutOnly

__all__ = ["DFA", "Alignment", "Angle", "FeedbackSpec", "ReadoutOnly", "alignment_report"]
