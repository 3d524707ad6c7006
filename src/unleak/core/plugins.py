"""Load the modules by which other packages extend unleak.

A package names such a module as an entry point of the group `unleak.plugins`, in its pyproject.toml:

    [project.entry-points."unleak.plugins"]
    mypackage = "mypackage.unleak_plugin"

The module is imported once, before a registry is first read, and registers what it has (`register_fix`,
`register_seam` and the like).
"""

import warnings
from functools import cache
from importlib.metadata import entry_points

__all__ = ["load_plugins"]


@cache
def load_plugins() -> None:
    """Import every plugin module, once in a process. A plugin that fails is named in a warning and left out."""
    for point in entry_points(group="unleak.plugins"):
        try:
            point.load()
        except Exception as error:  # noqa: BLE001  # anything may be wrong with somebody else's package
            warnings.warn(f"the unleak plugin {point.name} ({point.value}) does not load: {error}", stacklevel=2)
