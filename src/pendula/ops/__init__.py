"""Fused scans: tensors in, tensors out; they know no cell."""
