"""What paths do, and what they cost: nats, creativity, and time against a named rival in the same run."""
