"""Errors that a user can act on."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class UserError(ValueError):
    """Something in a command, a configuration or a file is wrong; the message is one line that says what to do.

    Commands print it without a traceback.

    Parameters
    ----------
    message : str
    key : str, optional
        The option, hyperparameter or key of a configuration that it is about

    Examples
    --------
    >>> import dimenet_tf
    >>> dimenet_tf.load("no_such_model")
    Traceback (most recent call last):
        ...
    dimenet_tf.errors.UserError: ...
    """

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


def check_choice(key: str, value: object, choices: Iterable[str], more: str = "") -> None:
    """Raise a UserError unless a value is one of its choices.

    Parameters
    ----------
    key : str
        Name of the option in the message
    value : object
    choices : iterable of str
    more : str, optional
        What else would be taken, for the message

    Examples
    --------
    >>> check_choice("data.on_bad", "ignore", ("error", "drop"))
    Traceback (most recent call last):
    dimenet_tf.errors.UserError: data.on_bad must be one of error, drop; got 'ignore'
    >>> check_choice("conventions", "offical", ("official", "corrected"))
    Traceback (most recent call last):
    dimenet_tf.errors.UserError: conventions must be one of official, corrected; got 'offical'. Did you mean 'official'?
    """
    choices = list(choices)
    if value in choices:
        return
    close = difflib.get_close_matches(str(value), choices, n=1)
    hint = f". Did you mean '{close[0]}'?" if close else ""
    raise UserError(f"{key} must be one of {', '.join(choices)}{more}; got {value!r}{hint}", key)


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
