"""A dataset in, more dataset out: new rows along paths, filtered, without duplicates, each of which can be made again.

    loaded = load_model(None, "auto", "auto")
    settings = Augmentation(template=Template("{text:8}"), keep_prompt=True, paths=8, seed=7)
    report = augment(open_source("stories.jsonl"), "more.jsonl", settings, loaded, sr.route(loaded.model))
    for row in replay(new_rows(open_source("more.jsonl")), lambda name, dtype: load_model(name, "auto", dtype)):
        assert row.same

On the command line: `stochroute augment`.
"""

from stochroute.applications.augment.filters import Classifier, Filters, SequenceClassifier
from stochroute.applications.augment.replay import Replayed, new_rows, replay
from stochroute.applications.augment.run import Report, augment
from stochroute.applications.augment.settings import Augmentation
from stochroute.applications.augment.tables import open_source
from stochroute.applications.augment.template import Template

__all__ = [
    "Augmentation", "Classifier", "Filters", "Replayed", "Report", "SequenceClassifier", "Template",
    "augment", "new_rows", "open_source", "replay",
]  # fmt: skip
