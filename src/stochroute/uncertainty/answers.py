"""Asks a language model every question several times, and keeps what its answers and their tokens say.

asker = Asker(model, tokenizer, TASKS["gsm8k"], paths=10, seed=7)
asker.ask(temperature_only(0.5), questions, [0, 1, 2])              # one Answered a question
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stochroute.generation.decoding import Decoding
from stochroute.generation.padding import pad_left
from stochroute.generation.receipts import computed_in, fingerprint
from stochroute.measuring.nats import mixture
from stochroute.noise import NOISE_VERSION
from stochroute.paths import check_seed, derive_paths, format_path
from stochroute.routed import RoutedModel
from stochroute.transmission.decomposition import (
    TokenNats,
    check_paths,
    decompose_each,
    log_likelihoods,
    transmission_of_answers,
)
from stochroute.uncertainty.arms import Arm, dropped
from stochroute.uncertainty.datasets import Question, Task, normalise
from stochroute.uncertainty.stopping import StopTexts, cut, stop_place


@dataclass(frozen=True)
class Answered:
    """One question, answered K times by one arm.

    Attributes:
        arm: its name.
        index: which question.
        group: the question's.
        paths: ids of the paths, 16 hex digits.
        texts: what was written along each.
        answers: what the task found in each text, "" for nothing.
        right: whether each is.
        given: index of the answer given: the first that says what most of them say.
        tokens: the text of the answer given, token by token.
        nats: its decomposition over the K paths, by the names of `TokenNats`: without paths that differ, only what the
            original model says; under dropout, only what the paths say.
        log_likelihoods: of each text, log mean_k p(text | path k) in nats; None when not asked for.
        transmission: I(answer; path) of whole texts in nats; None when not asked for, or without paths that can be
            walked again.
    """

    arm: str
    index: int
    group: str
    paths: list[str]
    texts: list[str]
    answers: list[str]
    right: list[bool]
    given: int
    tokens: list[str]
    nats: dict[str, list[float]]
    log_likelihoods: list[float] | None = None
    transmission: float | None = None

    @property
    def wrong(self) -> bool:
        """Whether the answer given is."""
        return not self.right[self.given]

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Answered":
        """The row that `to_dict` wrote; KeyError or TypeError for anything else."""
        return cls(**{name: data[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True, eq=False)
class Asker:
    """A model that is asked.

    Attributes:
        model, tokenizer: of a decoder-only language model, in eval mode.
        task: how questions are put and answers found.
        paths: K, answers a question; the same for every arm that draws.
        seed: path ids are derived from it and the question's index.
        template: the prompt with {question}; None for the task's own.
        new_tokens: how long a text may get; None for the task's own.
        chat: whether the prompt is a user's turn, put into the tokenizer's chat template.
        likelihoods: whether every text is also scored along every path, K² short passes a question, for the
            transmission of whole answers and weighted semantic entropy.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    task: Task
    paths: int = 10
    seed: int = 0
    template: str | None = None
    new_tokens: int | None = None
    chat: bool = False
    likelihoods: bool = False

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_paths(range(self.paths))
        if self.template is not None and "{question}" not in self.template:
            raise ValueError(f"template={self.template!r} has no {{question}}: write it where the question belongs")
        if self.chat and not self.tokenizer.chat_template:
            raise ValueError("chat=True: the tokenizer has no chat template; leave chat out")

    def circumstances(self, arms: Sequence[Arm], questions: Sequence[Question]) -> dict[str, Any]:
        """All that the answers depend on, as JSON types: what an `AnswerFile` is told apart by."""
        asked = [(question.text, question.references) for question in questions]
        return {
            "model": fingerprint(self.model),
            "dtype": computed_in(self.model),
            "noise_version": NOISE_VERSION,
            "task": self.task.name,
            "template": self.template or self.task.template,
            "chat": self.chat,
            "new_tokens": self.new_tokens or self.task.new_tokens,
            "paths": self.paths,
            "seed": self.seed,
            "likelihoods": self.likelihoods,
            "arms": [arm.to_dict() for arm in arms],
            "questions": len(questions),
            "questions_sha256": hashlib.sha256(json.dumps(asked).encode()).hexdigest(),
        }

    def prompt(self, question: Question) -> str:
        """What the model is given to continue."""
        return (self.template or self.task.template).replace("{question}", question.text)

    def ask(self, arm: Arm, questions: Sequence[Question], indices: Sequence[int]) -> list[Answered]:
        """The questions of these indices, answered by the arm.

        Answers do not depend on the batch they are asked in, but under dropout, whose masks are the batch's: there, ask
        the same batches again, or one question at a time.
        """
        paths = [derive_paths(self.seed, 1 if arm.single else self.paths, prompt=index) for index in indices]
        with arm.attached(self.model) as routed, dropped(self.model, arm.dropout, paths[0][0]):
            return self._answer(arm, routed, questions, indices, paths)

    def _answer(
        self,
        arm: Arm,
        routed: RoutedModel,
        questions: Sequence[Question],
        indices: Sequence[int],
        paths: list[list[int]],
    ) -> list[Answered]:
        prompts = [self._encode(questions[index]) for index in indices]
        written = self._write(arm, routed, prompts, paths)
        rows: list[Answered] = []
        for index, ids, texts in zip(indices, paths, written, strict=True):
            said = [self._decode(text) for text in texts]
            answers = [self.task.extract(text) for text in said]
            right = [self.task.is_right(answer, questions[index]) for answer in answers]
            given = most_frequent([normalise(answer) for answer in answers])
            tokens = [self._token(token) for token in texts[given]]
            hexed = [format_path(path) for path in ids]
            group = questions[index].group
            rows.append(Answered(arm.name, index, group, hexed, said, answers, right, given, tokens, {}))
        return self._measure(arm, routed, prompts, paths, written, rows)

    def _write(
        self, arm: Arm, routed: RoutedModel, prompts: list[list[int]], paths: list[list[int]]
    ) -> list[list[list[int]]]:
        """Token ids of the K texts of every prompt, each up to the token that ends it."""
        width, pad = max(map(len, prompts)), self._pad
        out = routed.generate(
            **pad_left(prompts, pad, self.model.device),
            paths=paths,
            max_new_tokens=self.new_tokens or self.task.new_tokens,
            pad_token_id=pad,
            stopping_criteria=[StopTexts(self.tokenizer, self.task.stop, width)],
            num_beams=1,
            **Decoding(arm.temperature or None).arguments(),
        )
        rows = iter(cast(list[list[int]], out.generated.tolist()))
        return [[self._ended(next(rows)) for _ in ids] for ids in paths]

    def _measure(
        self,
        arm: Arm,
        routed: RoutedModel,
        prompts: list[list[int]],
        paths: list[list[int]],
        written: list[list[list[int]]],
        rows: list[Answered],
    ) -> list[Answered]:
        """The rows, with the nats of the answers given and, where asked for, the likelihoods of all."""
        given = [texts[row.given] for texts, row in zip(written, rows, strict=True)]
        # where paths do not differ nothing is decided by them, and two rows tell as much as K
        walked = paths if _differ(arm, routed) else [[ids[0]] * 2 for ids in paths]
        nats = decompose_each(routed, prompts, given, walked, arm.temperature or 1.0)
        measured: list[Answered] = []
        for row, prompt, texts, ids, found in zip(rows, prompts, written, paths, nats, strict=True):
            more: dict[str, Any] = {"nats": _lists(found, _measured(arm, routed))}
            if self.likelihoods and not arm.single:
                along = ids if _differ(arm, routed) else ids[:1]
                log_p = log_likelihoods(routed, prompt, texts, along, arm.temperature or 1.0)
                more["log_likelihoods"] = mixture(log_p.T).tolist()
                if not routed.silent:  # dropout would draw other masks than those that wrote the texts
                    more["transmission"] = transmission_of_answers(log_p, range(len(ids)))
            measured.append(Answered(**{**asdict(row), **more}))
        return measured

    @property
    def _stops(self) -> set[int]:
        ends = self.model.generation_config.eos_token_id
        return set(ends) if isinstance(ends, list) else set() if ends is None else {ends}

    @property
    def _pad(self) -> int:
        ids = (self.tokenizer.pad_token_id, *sorted(self._stops), 0)
        return next(i for i in ids if isinstance(i, int))

    def _encode(self, question: Question) -> list[int]:
        text = self.prompt(question)
        if self.chat:
            turn = [{"role": "user", "content": text}]
            text = cast(str, self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
        return list(cast(Any, self.tokenizer(text, add_special_tokens=not self.chat))["input_ids"])

    def _ended(self, ids: list[int]) -> list[int]:
        """Up to the token that ends the text, with it; padding goes."""
        for place, token in enumerate(ids):
            if token in self._stops:
                ids = ids[: place + 1]
                break
        else:
            while len(ids) > 1 and ids[-1] == self._pad:
                ids = ids[:-1]
        return cut(ids, self.tokenizer, self.task.stop)

    def _decode(self, ids: list[int]) -> str:
        text = str(self.tokenizer.decode(ids, skip_special_tokens=True))
        return text[: stop_place(text, self.task.stop)].strip()

    def _token(self, token: int) -> str:
        return str(self.tokenizer.decode([token]))


def most_frequent(answers: Sequence[str]) -> int:
    """Index of the first answer among those said most often; of several as frequent, the one said first."""
    counts = Counter(answers)
    most = max(counts.values())
    return next(index for index, answer in enumerate(answers) if counts[answer] == most)


def _differ(arm: Arm, routed: RoutedModel) -> bool:
    """Whether the model itself differs from path to path."""
    return arm.dropout > 0 or not routed.silent


def _measured(arm: Arm, routed: RoutedModel) -> tuple[str, ...]:
    """The parts of the decomposition that mean something: those of paths where they differ, those of the original model
    where it can be seen."""
    of_paths = ("total", "conditional", "transmission") if _differ(arm, routed) else ()
    return (*of_paths, *(() if arm.dropout else ("clean", "surprise")))


def _lists(nats: TokenNats, names: Sequence[str]) -> dict[str, list[float]]:
    return {name: [round(value, 6) for value in getattr(nats, name).tolist()] for name in names}
