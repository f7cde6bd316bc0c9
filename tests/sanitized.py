"""Runs the tests of the compiled kernels on a library built with sanitizers: see `make sanitize`.

python tests/sanitized.py LIBRARY [pytest arguments]
"""

import sys
from pathlib import Path

import pytest

from stochroute import compiled

TESTS = ["test_fused_attention.py", "test_fused_feed_forward.py", "test_philox.py", "test_families_kernels.py"]

if __name__ == "__main__":
    compiled._FILE = Path(sys.argv[1])
    here = Path(__file__).parent
    sys.exit(pytest.main([*(str(here / name) for name in TESTS), "-p", "no:cacheprovider", *sys.argv[2:]]))
