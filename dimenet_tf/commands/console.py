"""Shared parts of the commands: errors of one line, a quiet TensorFlow, arguments, signals."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

import click

from dimenet_tf.errors import UserError, unknown_name
from dimenet_tf.runs.catalog import pretrained_folders

# 75 is EX_TEMPFAIL: a queue may start the command again
EXIT_CODES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 75}
SETTINGS = {"max_content_width": 100, "help_option_names": ["-h", "--help"]}
DOMAIN = click.Choice(["flag", "error"])


def import_tensorflow() -> None:
    """Import TensorFlow without its notices; with TF_CPP_MIN_LOG_LEVEL=0 all of them are shown.

    Newer versions print some before they look at that variable (github.com/tensorflow/tensorflow/issues/100442), so
    standard error is closed during the import. An import that fails raises its error all the same.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ or "tensorflow" in sys.modules:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    screen, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        importlib.import_module("tensorflow")
    finally:
        os.dup2(screen, 2)
        os.close(screen)
        os.close(nowhere)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Print a `UserError` without a traceback and exit with code 2. Also a decorator; for scripts without Click."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


@contextlib.contextmanager
def leaving_on_signals() -> Iterator[None]:
    """Exit with the code of `EXIT_CODES` at a signal: nothing is lost as long as nothing is trained."""
    before = {number: signal.getsignal(number) for number in EXIT_CODES}
    try:
        for number, code in EXIT_CODES.items():
            signal.signal(number, lambda *_, code=code: sys.exit(code))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Failure(click.ClickException):
    """A `UserError` as Click reports it."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message."""
        click.echo(f"error: {self.message}", file=file, err=file is None)


class Commands(click.Group):
    """A group of commands in the order of their definition, whose mistakes are errors of one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find a command by its name; an unknown one is a `UserError` that names the closest one."""
        if args and not ctx.resilient_parsing and args[0][:1] != "-" and args[0] not in self.commands:
            raise unknown_name("command", args[0], self.commands)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Call a command."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise Failure(str(error)) from None
        except KeyboardInterrupt:
            ctx.exit(EXIT_CODES[signal.SIGINT])


class ModelCommand(click.Command):
    """A command that needs TensorFlow."""

    def invoke(self, ctx: click.Context) -> Any:
        """Import TensorFlow and call the command."""
        import_tensorflow()
        return super().invoke(ctx)


def completing(names: Callable[[], Iterable[str]]) -> Callable:
    """Make a function that completes an argument by names, or by files."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list:
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name) for name in names() if name.startswith(incomplete)]
        return [*found, CompletionItem(incomplete, type="file")]

    return complete


def model_argument(function: Callable) -> Callable:
    """Add the argument MODEL to a command."""
    return click.argument("model", shell_complete=completing(pretrained_folders))(function)


def pairs(given: Iterable[str], option: str) -> dict[str, str]:
    """Take NAME=VALUE texts apart.

    Examples
    --------
    >>> pairs(["energy=REF_energy"], "--key")
    {'energy': 'REF_energy'}
    """
    for text in given:
        if not all(text.partition("=")):
            raise UserError(f"{option} takes NAME=VALUE, as {option} energy=...; got '{text}'")
    return dict(text.split("=", 1) for text in given)


key_option = click.option(
    "--key", "keys", multiple=True, metavar="NAME=KEY", help="The file's name for a property: energy=REF_energy."
)
unit_option = click.option(
    "--unit", "units", multiple=True, metavar="NAME=UNIT", help="Unit in the file: energy=kcal/mol, R=a0."
)
