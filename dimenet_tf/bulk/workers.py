"""Processes of the same command that each compute a share. They end with their parent, whatever ends it."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import Any

from dimenet_tf.errors import UserError

NOTE = "note: "


def run_workers(commands: Sequence[Sequence], advance: Callable[[int], object]) -> list[str]:
    """Run `python -m dimenet_tf COMMAND` for every command at once, and call `advance` with finished molecules.

    Returns
    -------
    list of the remarks of the workers' readers about the file, each once

    Raises
    ------
    UserError
        When one of them fails or is killed; the others are ended.
    """
    done: queue.Queue[int] = queue.Queue()
    with contextlib.ExitStack() as running:
        workers = [running.enter_context(_Worker(command, _environment(len(commands)), done)) for command in commands]
        while any([worker.is_running() for worker in workers]):  # a list: every one is asked whether it has failed
            with contextlib.suppress(queue.Empty):
                advance(done.get(timeout=0.1))
    while not done.empty():
        advance(done.get())
    return list(dict.fromkeys(note for worker in workers for note in worker.notes))


class _Worker:
    """One process; its standard input stays open as long as the parent lives, its output reports its progress."""

    def __init__(self, command: Sequence, environment: dict[str, str], done: queue.Queue[int]) -> None:
        self.notes: list[str] = []
        self.messages = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115, closed at the end
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dimenet_tf", *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.messages,
            text=True,
            env=environment,
        )
        self.reader = threading.Thread(target=self._pass_on, args=(done,), daemon=True)
        self.reader.start()

    def _pass_on(self, done: queue.Queue[int]) -> None:
        for line in self.process.stdout or ():
            if line.strip().isdigit():
                done.put(int(line))
            elif line.startswith(NOTE):
                self.notes.append(line.removeprefix(NOTE).strip())

    def is_running(self) -> bool:
        code = self.process.poll()
        if code:
            raise UserError(f"{self._reason(code)}; finished pieces are kept, and the same command resumes")
        return code is None

    def _reason(self, code: int) -> str:
        if code < 0:
            hint = " (is there too little memory?)" if code == -signal.SIGKILL else ""
            return f"process {self.process.pid} was ended by {signal.Signals(-code).name}{hint}"
        self.messages.seek(0)
        last = ([line.strip() for line in self.messages if line.strip()] or [f"exit code {code}"])[-1]
        if last.startswith("error: "):
            return last.removeprefix("error: ")
        return f"process {self.process.pid} failed: {last}"

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.kill()  # does nothing to one that has ended; pieces are written whole or not at all
        self.process.wait()
        self.reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.messages.close()


def _environment(processes: int) -> dict[str, str]:
    """Return the environment of workers, which share cores and the memory of a GPU unless the user sets these."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ours = {"TF_NUM_INTRAOP_THREADS": str(max(1, cores // processes)), "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    return {**ours, **os.environ}


def stop_with_parent() -> None:
    """End this worker as soon as its parent is gone: its standard input ends then. Ctrl-C is the parent's matter."""

    def watch() -> None:
        sys.stdin.read()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


def print_progress(count: int) -> None:
    """Tell the parent of molecules that are done."""
    print(count, flush=True)


def print_notes(notes: Sequence[str]) -> None:
    """Print what a reader remarks of a file, a line each; to the user, or to the parent of a worker."""
    for note in notes:
        print(f"{NOTE}{note}", flush=True)
