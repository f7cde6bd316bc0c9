"""The numbers that csrc/abi.h gives to dtypes and distributions."""

import torch

DTYPES = {torch.float32: 0, torch.bfloat16: 1}
DISTRIBUTIONS = {"normal": 0, "uniform": 1, "rademacher": 2}
