"""Calibration: a budget in nats becomes strength.

report = routed.calibrate(prompts, budget=0.05, tokenizer=tokenizer)
print(report)
"""

from stochroute.calibration.calibrate import calibrate
from stochroute.calibration.divergence import Measured, measure
from stochroute.calibration.prompts import Sample, neutral_rows, token_rows
from stochroute.calibration.report import Report
from stochroute.calibration.search import OutOfReach

__all__ = [
    "Measured",
    "OutOfReach",
    "Report",
    "Sample",
    "calibrate",
    "measure",
    "neutral_rows",
    "token_rows",
]
