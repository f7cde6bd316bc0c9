"""The kernels in Triton, for CUDA; each module imports triton, so nothing imports them before they are wanted."""
