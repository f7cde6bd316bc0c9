"""A tiny model that can be asked, and questions of which it knows some."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cli_model import save_tiny_model
from stochroute.uncertainty import TASKS, Asker, Question, single_pass


@cache
def folder() -> str:
    """A folder with the tiny random model of the command line's tests, made sure of itself: untrained, all tokens would
    be about as likely."""
    name = save_tiny_model(Path(mkdtemp(prefix="stochroute-tiny-")))
    model = AutoModelForCausalLM.from_pretrained(name)
    with torch.no_grad():
        model.lm_head.weight.mul_(15.0)
    model.save_pretrained(name)
    return name


@cache
def tiny() -> tuple[Any, Any]:
    """Model (float64) and tokenizer."""
    return AutoModelForCausalLM.from_pretrained(folder(), dtype=torch.float64).eval(), AutoTokenizer.from_pretrained(
        folder()
    )


def asker(**options: Any) -> Asker:
    """One that asks the tiny model for texts of five tokens."""
    return Asker(*tiny(), TASKS["plain"], **{"new_tokens": 5, **options})


@cache
def half_known(count: int = 8) -> tuple[Question, ...]:
    """Questions to which the model's likeliest answer is right for every other one."""
    open_questions = [Question(f"q{index}", ("never",)) for index in range(count)]
    rows = asker().ask(single_pass(), open_questions, range(count))
    return tuple(
        Question(question.text, (row.answers[0] if index % 2 else "never",), "odd" if index % 2 else "even")
        for index, (question, row) in enumerate(zip(open_questions, rows, strict=True))
    )
