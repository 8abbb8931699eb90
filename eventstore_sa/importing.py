"""Finding an object of the application by its name, for the command line: `module:name`."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from eventstore_sa.errors import ConfigurationError

__all__ = ["imported"]


def imported(where: str) -> object:
    """Import a module, from the current folder too, and return one of its attributes.

    Args:
        where: `module:name`.

    Raises:
        ConfigurationError: If there is no such module or attribute, or the module cannot be imported.
    """
    module, _, name = where.partition(":")
    # The script of an environment does not look where it is started. It stays: applications import in functions, too.
    here = os.getcwd()  # noqa: PTH109
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: object = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError, ConfigurationError) as error:
        raise ConfigurationError(f"{where!r} cannot be imported: {error}; write module:name") from error
    except Exception as error:
        # Whatever the application does when it is imported, such as reading a variable that is not set.
        raise ConfigurationError(f"{where!r} cannot be imported: {type(error).__name__}: {error}") from error
    return found
