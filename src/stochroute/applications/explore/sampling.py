"""Samples paths of one prompt, batch by batch, until new ones stop bringing new answers."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from stochroute.applications.explore.answers import Reader
from stochroute.applications.explore.explored import Explored, read_texts
from stochroute.applications.writer import Writer
from stochroute.generation.decoding import GREEDY, Decoding
from stochroute.generation.receipts import computed_in, fingerprint, routing_hash
from stochroute.loading import LoadedModel
from stochroute.paths import check_integer, check_seed, derive_paths, format_path
from stochroute.resumable import ResumableFile
from stochroute.routed import RoutedModel


@dataclass(frozen=True)
class Exploration:
    """How the answers to a prompt are sampled.

    Attributes:
        seed: of the paths; path number i is `derive_paths(seed, i + 1)[i]`.
        until: the coverage to reach, by the lower end of its interval, in (0, 1).
        most: paths at most.
        batch: paths walked together; the estimates are looked at after each batch.
        decoding: how tokens are chosen.
        new_tokens: of a text, at most.
        stop: strings that end a text and do not belong to it.
        chat: whether the prompt is a user's turn in the chat template.
    """

    seed: int = 0
    until: float = 0.95
    most: int = 512
    batch: int = 32
    decoding: Decoding = GREEDY
    new_tokens: int = 128
    stop: tuple[str, ...] = ()
    chat: bool = False

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name in ("most", "batch", "new_tokens"):
            if check_integer(name, getattr(self, name), "give a number of at least 1") < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if not 0 < self.until < 1:
            raise ValueError(f"until {self.until}: give a coverage above 0 and below 1, such as 0.95")
        if self.decoding.spread:
            raise ValueError("decoding.spread: the estimates assume independent answers; leave spread out")
        if any(not text for text in self.stop):
            raise ValueError("stop: an empty string stands in every text; write what ends one")


def explore(
    prompt: str,
    settings: Exploration,
    loaded: LoadedModel,
    routed: RoutedModel,
    reader: Reader,
    *,
    output: str | Path | None = None,
    resume: bool = False,
    on_batch: Callable[[Explored], None] = lambda explored: None,
) -> Explored:
    """Walks paths until the coverage is reached, or as many as there may be.

    Args:
        prompt: what the texts continue.
        settings: how they are sampled.
        loaded: the model.
        routed: its routing.
        reader: says which texts are the same answer.
        output: keeps the texts, a batch a line; None for nowhere.
        resume: goes on with an output that is there.
        on_batch: called with what is known after each batch, those of an earlier run together.

    Raises:
        ValueError: the prompt does not fit, or the output is there and is not to be resumed, or is of another run.
        OSError: there is no room.
    """
    writer = Writer(loaded, routed, settings.decoding, settings.new_tokens, settings.stop, settings.chat)
    tokens = writer.encode(prompt, "the prompt")
    results = ResumableFile(output, identity(prompt, settings, writer), resume, lambda batch: batch["texts"])
    texts = read_texts(prompt, results.entries, reader)
    found = Explored(prompt, tuple(texts), settings.batch, settings.until)
    if texts:
        on_batch(found)
    try:
        while len(texts) < settings.most and not (texts and found.saturated):
            end = min(len(texts) + settings.batch, settings.most)
            paths = derive_paths(settings.seed, end)[len(texts) :]
            written = writer.write([tokens], [paths])[0]
            batch = {
                "texts": [
                    {"path": format_path(path), "text": one.text, "ended": one.ended}
                    for path, one in zip(paths, written, strict=True)
                ]
            }
            results.add(batch)
            texts += read_texts(prompt, [batch], reader)
            found = Explored(prompt, tuple(texts), settings.batch, settings.until)
            on_batch(found)
    finally:
        results.close()
    return found


def identity(prompt: str, settings: Exploration, writer: Writer) -> dict[str, Any]:
    """What tells this run from another; when to stop is left out, so that a run can be gone on with further."""
    kept = {name: value for name, value in asdict(settings).items() if name not in ("until", "most")}
    return {
        "prompt": prompt,
        **kept,
        "model": fingerprint(writer.loaded.model),
        "dtype": computed_in(writer.loaded.model),
        "routing": routing_hash(writer.routed),
        "engine": f"transformers {transformers.__version__}, torch {torch.__version__}",
    }


def read_run(file: str | Path, reader: Reader | None = None) -> Explored:
    """The texts that an exploration kept, for a fork; without a reader every text is its own answer.

    Raises:
        ValueError: the file cannot be read, or is no exploration.
    """
    try:
        data = Path(file).read_bytes()
        first, *lines = data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]
        run: dict[str, Any] = json.loads(first)["run"]
        batches: Sequence[Any] = [json.loads(line) for line in lines]
        texts = read_texts(run["prompt"], batches, _Itself() if reader is None else reader)
        return Explored(run["prompt"], tuple(texts), run["batch"], 0.95)
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror or error}; name the --output of an exploration") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: is no exploration ({error!r}); name the --output of one") from error


class _Itself:
    name = "itself"

    def read(self, prompt: str, text: str) -> str | None:
        return text
