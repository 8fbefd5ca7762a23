"""Trust: proven bounds checked at run time, and what a network does with its states and gradients."""

from pendula.diagnose.advice import Advice, advise
from pendula.diagnose.bounds import BrokenBound, Watch, certify
from pendula.diagnose.certificate import Certificate, broken
from pendula.diagnose.diagnosis import Diagnosis, examine
from pendula.diagnose.gradients import GradientFlow, gradient_flow
from pendula.diagnose.spectrum import LayerSpectrum, spectrum
from pendula.diagnose.verdict import LayerGradients

__all__ = [
    "Advice",
    "BrokenBound",
    "Certificate",
    "Diagnosis",
    "GradientFlow",
    "LayerGradients",
    "LayerSpectrum",
    "Watch",
    "advise",
    "broken",
    "certify",
    "examine",
    "gradient_flow",
    "spectrum",
]
