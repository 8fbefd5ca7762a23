"""Pure functions of tensors and numbers: schemes, their stability and their bounds."""
