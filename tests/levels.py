"""The instruction sets of the compiled kernels that can be tested here; none without a C++ compiler at installation."""

from stochroute import compiled

_library = compiled.library()
LEVELS: tuple[str, ...] = compiled.LEVELS[: _library.stochroute_levels()] if _library else ()
