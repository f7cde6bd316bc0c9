"""Robustness: attacked prompts, and what a vote over paths makes of them beside the original model and SmoothLLM.

items = read_items("questions.jsonl")
plan = Plan(perturbations=("typos", "drops"), rates=(0.1, 0.3), paths=8, seed=7)
answers = Answers(model, tokenizer, {"0.1": RoutingConfig()})
samples = []
chosen = run(plan, items, answers, Tables(), samples)
report(plan, items, samples, chosen)["attacked"]["gain"]["vote - clean"]
"""

from stochroute.robustness.answers import Answers
from stochroute.robustness.items import Item, read_items
from stochroute.robustness.perturbations import KINDS, perturb
from stochroute.robustness.report import report
from stochroute.robustness.runs import Plan, Sample, run
from stochroute.robustness.tables import Tables, read_tables
from stochroute.robustness.voting import Ballot, majority

__all__ = [
    "KINDS",
    "Answers",
    "Ballot",
    "Item",
    "Plan",
    "Sample",
    "Tables",
    "majority",
    "perturb",
    "read_items",
    "read_tables",
    "report",
    "run",
]
