"""Where noise enters a transformers model."""
