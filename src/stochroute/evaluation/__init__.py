"""Quality against diversity: paths against every tuned sampler, and what one report says about it."""
