"""Metrics of an evaluation; names.py lists them all."""
