"""The kernels for the processor: torch tensors handed over to the compiled library."""
