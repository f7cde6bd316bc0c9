"""Many texts from one prompt, each along its own path."""
