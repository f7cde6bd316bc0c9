"""Routed models inside the tools of others."""
