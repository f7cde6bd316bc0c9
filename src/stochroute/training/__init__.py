"""Training that keeps paths useful: objectives, and transformers' Trainer with paths bound to examples.

from stochroute.training import BoundPaths, RoutedTrainer

trainer = RoutedTrainer(routed, BoundPaths(), TrainingArguments("out"), examples, path_seed=7)
trainer.train()
"""

from stochroute.training.binding import example_key, example_paths
from stochroute.training.checkpoints import TornCheckpoint
from stochroute.training.data import Data, prepare_examples, read_examples
from stochroute.training.objectives import (
    BestOfK,
    BoundPaths,
    FreshPaths,
    InferredPaths,
    MarginalPreserving,
    Objective,
    Variational,
)
from stochroute.training.trainer import CheckpointFailed, RoutedTrainer, TrainingDiverged, TransmissionCollapsed

__all__ = [
    "BestOfK",
    "BoundPaths",
    "CheckpointFailed",
    "Data",
    "FreshPaths",
    "InferredPaths",
    "MarginalPreserving",
    "Objective",
    "RoutedTrainer",
    "TornCheckpoint",
    "TrainingDiverged",
    "TransmissionCollapsed",
    "Variational",
    "example_key",
    "example_paths",
    "prepare_examples",
    "read_examples",
]
