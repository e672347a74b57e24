"""The objectives, one file each. A new file in this folder is a new method, and so is one of an installed
package that names its module as an entry point of the group `sweeper.methods`; see docs/your-method.md.
"""

import importlib
import pkgutil
from importlib.metadata import entry_points

from trainables.errors import MethodError
from trainables.methods.base import METHODS, Method

GROUP = "sweeper.methods"

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

for _point in entry_points(group=GROUP):
    try:
        _point.load()
    except Exception as error:
        raise MethodError(
            f"the module {_point.value}, which an installed package names under {GROUP}, can't be used "
            f"({type(error).__name__}: {' '.join(str(error).split())}); mend or uninstall that package"
        ) from error

__all__ = ["METHODS", "Method"]
