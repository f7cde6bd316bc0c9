"""Other engines than transformers that walk the same paths: vLLM, and Ray on top of it."""
