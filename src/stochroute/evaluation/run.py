"""A run on disk: what was asked for, the samples so far, the scores so far. Any interruption can be gone on from.

FOLDER/run.json        the plan, and the strengths that its budgets needed
FOLDER/samples.jsonl   one text a line, appended
FOLDER/scores.jsonl    one score a line, in the order of the samples
FOLDER/evaluation.json all figures
FOLDER/report.html     the report
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stochroute.atomic import write_text
from stochroute.config import RoutingConfig

PLAN_FILE, SAMPLE_FILE, SCORE_FILE = "run.json", "samples.jsonl", "scores.jsonl"
RESULT_FILE, REPORT_FILE = "evaluation.json", "report.html"


@dataclass(frozen=True)
class Sample:
    """One text.

    Attributes:
        setting: name of the setting that wrote it.
        prompt: index of its prompt.
        sample: its number among the texts of this setting and prompt.
        path: the path id, 16 hex digits; None for a search or dropout.
        tokens: new tokens, without the one that ends a text.
        ended: whether the text came to its own end.
        text: the continuation, without its prompt.
    """

    setting: str
    prompt: int
    sample: int
    path: str | None
    tokens: int
    ended: bool
    text: str


class Run:
    """The folder of a run."""

    def __init__(self, folder: Path, plan: dict[str, Any], resume: bool):
        """Reads what is there and changes nothing yet.

        Args:
            folder: made where it is missing.
            plan: everything that decides the samples, as JSON types.
            resume: whether to go on with what is there.

        Raises:
            ValueError: there is a run already and `resume` was not asked for, or it is another run.
            OSError: the folder cannot be written.
        """
        self.folder = folder
        self.plan = plan
        self.strengths: dict[str, RoutingConfig] = {}
        self._trimmed: set[str] = set()  # files without half a line at their end
        folder.mkdir(parents=True, exist_ok=True)
        there = sorted(name for name in (PLAN_FILE, SAMPLE_FILE, SCORE_FILE) if (folder / name).exists())
        if not there:
            return
        if PLAN_FILE not in there:
            raise ValueError(
                f"{folder} holds {there[0]} but no {PLAN_FILE}, so nobody knows what wrote it: choose another folder"
            )
        if not resume:
            raise ValueError(f"{folder} holds a run already: go on with it by --resume, or choose another folder")
        try:
            record = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))
            before = dict(record["plan"])
            self.strengths = {name: RoutingConfig.from_dict(found) for name, found in record["strengths"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder / PLAN_FILE} is corrupt ({error!r}): choose another folder") from error
        differing = [key for key in {**before, **plan} if before.get(key) != plan.get(key)]
        if differing:
            raise ValueError(
                f"{folder} holds another run: {'; '.join(_difference(key, before, plan) for key in differing)}; "
                f"give its options again, or choose another folder"
            )

    def keep_strengths(self, strengths: dict[str, RoutingConfig]) -> None:
        """Adds setting -> routing to the strengths found, and writes the plan with all of them."""
        self.strengths |= strengths
        known = {name: routing.to_dict() for name, routing in self.strengths.items()}
        self.write(PLAN_FILE, json.dumps({"plan": self.plan, "strengths": known}, indent=1) + "\n")

    def samples(self) -> list[Sample]:
        """All whole lines of samples.

        Raises:
            ValueError: a line is no sample.
        """
        return [_sample(line, f"{self.folder / SAMPLE_FILE}, line {n}") for n, line in self._lines(SAMPLE_FILE)]

    def scores(self) -> list[dict[str, Any]]:
        """All whole lines of scores."""
        try:
            return [json.loads(line) for _, line in self._lines(SCORE_FILE)]
        except ValueError as error:
            raise ValueError(
                f"{self.folder / SCORE_FILE} is corrupt ({error}): delete it, scores are made again"
            ) from error

    def append(self, name: str, rows: Iterable[Any]) -> None:
        """Adds lines to a file and flushes; half a line from an interruption is cut off first."""
        path = self.folder / name
        lines = "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
        with path.open("ab+") as file:
            if name not in self._trimmed:
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
                self._trimmed.add(name)
            file.write(lines.encode())
            file.flush()

    def write(self, name: str, text: str) -> Path:
        """Writes a whole file, or leaves the old one."""
        path = self.folder / name
        write_text(path, text)
        return path

    def _lines(self, name: str) -> Iterator[tuple[int, str]]:
        path = self.folder / name
        if not path.exists():
            return
        data = path.read_bytes()
        for number, line in enumerate(data[: data.rfind(b"\n") + 1].split(b"\n")[:-1], 1):
            yield number, line.decode()


def _sample(line: str, where: str) -> Sample:
    try:
        return Sample(**json.loads(line))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: no sample of stochroute evaluate ({error}); choose another folder") from error


def _difference(key: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    def shown(value: Any) -> str:
        text = json.dumps(value, ensure_ascii=False)
        return text if len(text) <= 60 else text[:57] + "…"

    if isinstance(before.get(key), list) and isinstance(now.get(key), list):
        pairs = zip(before[key], now[key], strict=False)
        first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(before[key]), len(now[key])))
        return f"{key} differ from number {first + 1} on"
    return f"{key} was {shown(before.get(key))}, now {shown(now.get(key))}"
