"""What the commands share: errors of one line, a quiet TensorFlow, kinds of arguments, signals."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator

import click

from dimenet_tf.errors import UserError, unknown_name
from dimenet_tf.folders import pretrained_folders

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}  # "try again later": what a queue may start once more
SETTINGS = {"max_content_width": 100, "help_option_names": ["-h", "--help"]}
DOMAIN = click.Choice(["flag", "error"])


def quiet_tensorflow() -> None:
    """Keep TensorFlow's notices off the screen; call before it is imported. TF_CPP_MIN_LOG_LEVEL=0 shows them all."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


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

    def show(self, file=None) -> None:
        """Print the message."""
        click.echo(f"error: {self.message}", file=file, err=file is None)


class Commands(click.Group):
    """A group of commands in the order of their definition, whose mistakes are errors of one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]):
        """Find a command by its name; an unknown one is a `UserError` that names the closest one."""
        if args and not ctx.resilient_parsing and args[0][:1] != "-" and args[0] not in self.commands:
            raise unknown_name("command", args[0], self.commands)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context):
        """Call a command."""
        quiet_tensorflow()
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise Failure(str(error)) from None
        except KeyboardInterrupt:
            ctx.exit(EXIT_CODES[signal.SIGINT])


def completing(names: Callable[[], Iterable[str]]) -> Callable:
    """Make a function that completes an argument by names, or by files."""

    def complete(ctx, param, incomplete: str) -> list:
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
