"""The fused scans on a GPU, in Triton: the same operators as on the processor; imported when a tensor asks for them."""
