"""Uncertainty from paths: several answers to a question, scores of how little they agree, and how well those detect
what is wrong."""

from stochroute.uncertainty.answer_file import AnswerFile
from stochroute.uncertainty.answers import Answered, Asker
from stochroute.uncertainty.arms import NO_NOISE, Arm, dropped, single_pass, temperature_only
from stochroute.uncertainty.datasets import TASKS, Question, Task, read_questions, write_questions
from stochroute.uncertainty.equivalence import Equivalence, mutual_entailment, near_embeddings, same_text
from stochroute.uncertainty.knowledge import KnowledgeBase
from stochroute.uncertainty.presets import noise_injection
from stochroute.uncertainty.scores import scores_of

__all__ = [
    "AnswerFile",
    "Answered",
    "Arm",
    "Asker",
    "Equivalence",
    "KnowledgeBase",
    "NO_NOISE",
    "Question",
    "TASKS",
    "Task",
    "dropped",
    "mutual_entailment",
    "near_embeddings",
    "noise_injection",
    "read_questions",
    "same_text",
    "scores_of",
    "single_pass",
    "temperature_only",
    "write_questions",
]
