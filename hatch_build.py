"""Compiles the kernels of src/stochroute/compiled/csrc into the package, whether it is installed, packed or linked for
editing. Without a C++ compiler there is nothing to compile, and the wheel is a pure one."""

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LIBRARY = "src/stochroute/compiled/libstochroute_kernels.so"


class CompiledKernels(BuildHookInterface):
    """The build hook that hatchling finds by this file's name."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        library = Path(self.root) / LIBRARY
        library.unlink(missing_ok=True)
        # a build folder that stays would remember the tools of this build's passing environment
        with tempfile.TemporaryDirectory() as build:
            for step in (
                ["-G", "Ninja", "-S", library.parent / "csrc", "-B", build, f"-DCMAKE_INSTALL_PREFIX={library.parent}"],
                ["--build", build],
                ["--install", build],
            ):
                subprocess.run([sys.executable, "-m", "cmake", *map(str, step)], check=True)
        if library.exists():
            build_data["artifacts"].append(f"/{LIBRARY}")
            build_data["pure_python"] = False
            # a C interface serves every Python
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
