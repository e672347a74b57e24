"""Data sets: names.py lists them, registry.py loads them."""
