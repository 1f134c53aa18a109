"""Errors that a user can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
