"""How long things take, always against a named rival in the same run."""
