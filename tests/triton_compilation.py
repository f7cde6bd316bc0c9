"""Compiles every kernel for an H100 on a machine that has none: `python triton_compilation.py` prints a JSON list of
{"kernel", "shared", "popc"}: the bytes of shared memory and the number of population counts in its PTX."""

import json
import sys
from pathlib import Path

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

sys.path.insert(0, str(Path(__file__).parent))

import stochroute as sr
from attention_inputs import attention_inputs
from stochroute.kernels.feed_forward import FeedForwardNoise
from stochroute.kernels.triton import blocks, feed_forward, noise, philox, unit_noise
from stochroute.kernels.triton.attention_backward import backward
from stochroute.kernels.triton.attention_decode import decode
from stochroute.kernels.triton.attention_forward import forward

SHARED_MEMORY = 227 << 10


class H100:
    """A driver without a device: enough of one to compile."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_all() -> list[dict]:
    found = []
    run = JITFunction.run

    def compile_only(self, *args, grid, warmup, **kwargs):
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        popc = kernel.asm["ptx"].count("popc.b32")
        found.append({"kernel": self.__name__, "shared": kernel.metadata.shared, "popc": popc})

    JITFunction.run = compile_only
    driver.set_active(H100())
    blocks.shared_memory = lambda device: SHARED_MEMORY
    sizes = {"queries": 64, "keys": 96, "heads": 8, "dtype": torch.bfloat16}
    forward(attention_inputs(width=128, **sizes))
    # all at once takes the most memory
    given = attention_inputs(width=256, softcap=2.0, sinks=torch.zeros(8), buckets=9, explicit=True, **sizes)
    out, lse = forward(given)
    decode(given)
    backward(given, out, lse, out)
    keys = sr.noise.key_words([1])
    drawn = given.noise
    assert drawn is not None
    noise.attention_noise(drawn.row_keys, drawn.key_positions)
    noise.vector_noise(keys, 37, torch.zeros(1, dtype=torch.int64), 3, sr.noise.Kind.FFN)
    philox.philox_grid(tuple(keys[0, :1] for _ in range(6)))
    states, vector = torch.zeros(1, 5, 896, dtype=torch.bfloat16), torch.zeros(896)
    zeros = torch.zeros(1, 5)
    structural = FeedForwardNoise(keys, zeros.long(), 3, "normal", zeros, True, vector, vector)
    feed_forward.add_noise(states, structural)
    feed_forward.add_noise_backward(states, states, structural)
    unit = torch.zeros(1, 5, 896)
    unit_noise.add_unit_noise(states, unit, zeros, True)
    unit_noise.add_unit_noise_backward(states, states, unit, zeros, True)
    return found


if __name__ == "__main__":
    print(json.dumps(compile_all()))
