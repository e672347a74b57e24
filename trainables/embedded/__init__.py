"""What comes with the project: a small CLIP, a subset of Fashion-MNIST, and how both were made."""

from pathlib import Path

MODELS = {"clip-tiny": Path(__file__).parent / "clip-tiny"}
