"""The objectives, one file each. A new file in this folder is a new method."""

import importlib
import pkgutil

from trainables.methods.base import METHODS, Method

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["METHODS", "Method"]
