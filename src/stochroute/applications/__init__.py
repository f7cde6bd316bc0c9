"""What paths are for, as finished tools: each a package of its own, with a verb on the command line."""
