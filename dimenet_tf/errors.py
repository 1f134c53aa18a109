"""Errors that a user can act on."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class UserError(ValueError):
    """Something in a command, a configuration or a file is wrong; the message is one line that says what to do.

    The run scripts print it without a traceback.
    """


def unknown_name(what: str, name: str, known: Iterable[str]) -> UserError:
    """Make the error for a name that is not among the known ones, with the closest right one."""
    known = [str(k) for k in known]
    lower = {k.lower(): k for k in reversed(known)}
    close = [lower[k] for k in difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)]
    hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
    return UserError(f"unknown {what} '{name}'; {hint}")


def import_optional(module: str, extra: str) -> ModuleType:
    """Import a module of a package that only an extra of dimenet-tf requires.

    Raises
    ------
    UserError
        If the package is not installed, with the command that installs it.

    Examples
    --------
    >>> import_optional("absent.module", "serving")
    Traceback (most recent call last):
    dimenet_tf.errors.UserError: the package absent is not installed; install it by: pip install "dimenet-tf[serving]"
    """
    package = module.split(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != package:  # the package is there, and lacks one of its own requirements
            raise
        raise UserError(
            f'the package {package} is not installed; install it by: pip install "dimenet-tf[{extra}]"'
        ) from None
