"""Handlers for worker processes, which have to find them by name."""

from __future__ import annotations

import os
import signal
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
        case _:
            pass
