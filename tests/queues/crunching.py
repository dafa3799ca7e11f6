"""Handlers for worker processes, which have to find them by name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import attrs

from trio_services.queues import Discard, RetryLater


@attrs.frozen
class Task:
    """What a handler is to do, and the file in which it says that it does it."""

    what: str
    file: Path
    seconds: float = 0.0


class Odd(Exception):
    """An error that can be pickled and not made again."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


class Unpickling:
    """An item that can be sent, and not be received: it fails, or ends the process, over there."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        if self.how == "exit":
            return os._exit, (3,)
        return int, ("not a number",)


class OnlyHere:
    """A handler that can be sent, and not be received."""

    def __call__(self, item: object) -> None: ...

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return refuse, ()


def refuse() -> None:
    raise ValueError("this handler is not for you")


def measure(item: bytes) -> None:
    if len(item) != 10_000_000:
        raise ValueError(f"{len(item)} bytes have come")


def ignore(item: object) -> None:
    pass


def attempts(task: Task) -> list[int]:
    """The process ids of the attempts so far."""
    return [int(line) for line in task.file.read_text().split()] if task.file.exists() else []


def crunch(task: Task) -> None:
    first = not attempts(task)
    with task.file.open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
    print("crunching")  # must not be taken for an answer
    match task.what:
        case "work":
            time.sleep(task.seconds)
        case "fail":
            raise ValueError("cannot crunch that")
        case "odd":
            raise Odd("very ", "odd")
        case "discard":
            raise Discard
        case "later" if first:
            raise RetryLater(0)
        case "die" if first:
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit" if first:
            os._exit(3)
        case "ask for exit":
            sys.exit(1)
        case "write to fd 1":
            os.write(1, b"\x00" * 100)
            subprocess.run([sys.executable, "-c", "print('hello')"], check=True)
        case "read":
            data = subprocess.run(["cat"], check=True, capture_output=True, timeout=5).stdout
            if data + os.read(0, 100):
                raise ValueError("has read what was not meant for it")
        case _:
            pass
