"""An OpenAI-compatible server with paths, on transformers.

Data flows one way: protocol (what a request may say) → reading (what it asks of this model) → scheduler (rows that
share forward passes) → answers (what is sent back). `stochroute serve` puts them together.
"""
