"""Builds the release from a clean clone, and uses it as a stranger would: in a bare environment, without the sources.

python .ci/release.py [--output dist]            # of the last commit; needs git, a C++ compiler and a package index

The wheel that is installed is the one built from the source distribution. One built from the clone must hold the same
files, and the source distribution every file of the repository.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LARGEST_WHEEL = 15 * 10**6  # bytes
LIBRARY = "stochroute/compiled/libstochroute_kernels.so"
IN_WHEEL = (LIBRARY, "stochroute/py.typed", "stochroute/embedded/weights/model.safetensors")
VERBS = """
from stochroute.cli import app
print(*[verb.name for verb in [*app.registered_commands, *app.registered_groups]])
"""
# what each of these verbs says in an environment without its extra
EXTRAS = {
    "serve": ("serve", []),
    "train": ("train", ["--config", "recipe.yaml"]),
    "evaluate": ("eval", ["--output", "run"]),
    "lm-eval": ("lm-eval", []),
    "export": ("gguf", ["--gguf", "path.gguf", "--path", "c009f9dcf4607a2d", "--span", "all", "--fix-scale"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="a folder for the wheel and the source distribution")
    output: Path | None = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        sdist, wheel = build(work)
        environment = Environment(work, wheel)
        environment.use()
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            for file in (sdist, wheel):
                shutil.copy(file, output)
    print("the release builds, installs and runs")


def build(work: Path) -> tuple[Path, Path]:
    """The source distribution and the wheel built from it, both checked."""
    clone, dist, direct = work / "clone", work / "dist", work / "direct"
    run("git", "clone", "--quiet", "--no-hardlinks", ROOT, clone)
    run(sys.executable, "-m", "build", "--outdir", dist, clone)
    run(sys.executable, "-m", "build", "--wheel", "--outdir", direct, clone)
    (sdist,), (wheel,), (twin,) = dist.glob("*.tar.gz"), dist.glob("*.whl"), direct.glob("*.whl")
    tracked = set(run("git", "-C", clone, "-c", "core.quotepath=off", "ls-files").splitlines())
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    expect(packed - {"PKG-INFO"} == tracked, f"the source distribution differs from git by {packed ^ tracked}")
    held = contents(wheel)
    expect(held == contents(twin), "the wheel built from the source distribution is not the one built from the clone")
    missing = [name for name in IN_WHEEL if name not in held]
    expect(not missing, f"the wheel lacks {missing}")
    expect(all(name.split("/")[0].startswith("stochroute") for name in held), "the wheel installs other packages too")
    expect(any(name.endswith("/licenses/LICENSE") for name in held), "the wheel has no licence")
    size = wheel.stat().st_size
    expect(size <= LARGEST_WHEEL, f"the wheel has {size} bytes, more than {LARGEST_WHEEL}")
    print(f"{wheel.name}: {size / 1e6:.1f} MB; {sdist.name}: {sdist.stat().st_size / 1e6:.1f} MB, {len(packed)} files")
    return sdist, wheel


def contents(wheel: Path) -> dict[str, int]:
    """Name -> checksum of each file; compiled code, and the record of its hash, count by name alone."""
    with zipfile.ZipFile(wheel) as archive:
        return {i.filename: 0 if i.filename.endswith((".so", "/RECORD")) else i.CRC for i in archive.infolist()}


class Environment:
    """A new virtual environment that holds the wheel and what it requires, and an empty folder to work in."""

    def __init__(self, work: Path, wheel: Path):
        self.scripts, self.folder = work / "bare" / "bin", work / "empty"
        self.folder.mkdir()
        self.version = wheel.name.split("-")[1]
        venv.create(work / "bare", with_pip=True)
        constraints = [] if shutil.which("nvidia-smi") else ["-c", ROOT / "constraints.txt"]
        run(self.scripts / "python", "-m", "pip", "install", "--quiet", "--no-compile", *constraints, wheel)

    def use(self) -> None:
        """What somebody does who has just installed it."""
        expect(self.says("--version") == f"stochroute {self.version}\n", "--version is not that of the wheel")
        described = self.says("--help")
        for verb in self.python(VERBS).split():
            expect(f" {verb} " in described, f"--help does not name {verb}")
            if verb != "lm-eval":  # whose --help is that of the harness
                expect(f"stochroute {verb}" in self.says(verb, "--help"), f"{verb} --help shows no use of it")

        rows = [json.loads(line) for line in self.says("generate", "--seed", "7", "--json").splitlines()]
        expect(len({row["text"] for row in rows}) == 8, "generate did not tell eight stories")
        (again,) = self.says("generate", "--replay", rows[3]["path"], "--json").splitlines()
        expect(json.loads(again)["text"] == rows[3]["text"], "a path did not replay")

        level = self.python("from stochroute import compiled; print(compiled.level())")
        expect(level.strip().isdigit(), f"the compiled kernels are not used: {level}")
        for verb, (extra, arguments) in EXTRAS.items():
            self.expect_hint(verb, arguments, f"pip install 'stochroute[{extra}]'")

    def says(self, *arguments: str) -> str:
        """Standard output of a stochroute command."""
        return run(self.scripts / "stochroute", *arguments, cwd=self.folder)

    def python(self, code: str) -> str:
        """Standard output of a Python program."""
        return run(self.scripts / "python", "-c", code, cwd=self.folder)

    def expect_hint(self, verb: str, arguments: list[str], hint: str) -> None:
        """The verb must name what it lacks and end with exit code 2."""
        (self.folder / "recipe.yaml").write_text("output: out\ndata: {train: texts.jsonl}\n")
        command = [self.scripts / "stochroute", verb, *arguments]
        done = subprocess.run(command, cwd=self.folder, env=clean(), capture_output=True, text=True, check=False)
        said = done.stderr.strip()
        expect(done.returncode == 2 and hint in said, f"{verb} without its extra ends with {done.returncode}: {said}")


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Standard output; ends everything with what was said, where the command fails."""
    print("$", " ".join(map(str, command)), flush=True)
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=clean(), capture_output=True, encoding="utf-8", check=False
    )
    expect(done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def clean() -> dict[str, str]:
    """The environment without what would lead a command back to the sources, or to the network."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return {**kept, "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}


def expect(true: bool, otherwise: str) -> None:
    if not true:
        sys.exit(f"release: {otherwise}")


if __name__ == "__main__":
    main()
