"""What a worker process does: it calls what it is sent, one thing after the other.

It is started as a program of its own, speaks over its standard input and output in frames (a length
of 8 bytes, and a pickle), and ends when its input does, whatever it is doing: then its parent is
gone. A stop is its parent's affair, so it takes no notice of signals that are sent to all.
"""

from __future__ import annotations

import os
import pickle
import runpy
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from queue import SimpleQueue
from types import ModuleType
from typing import BinaryIO

LENGTH = struct.Struct("!Q")


def frame(value: object) -> bytes:
    """A value as it is sent."""
    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(data)) + data


def _read_frames(source: BinaryIO, frames: SimpleQueue[bytes]) -> None:
    while len(head := source.read(LENGTH.size)) == LENGTH.size:
        frames.put(source.read(*LENGTH.unpack(head)))
    os._exit(0)


def _import_main(path: str) -> None:
    """Make what the parent's program defines known, without running it as a program.

    Source: `multiprocessing.spawn`, which does the same for the same reason.
    """
    main = ModuleType("__mp_main__")
    vars(main).update(runpy.run_path(path, run_name="__mp_main__"))
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main


def _call(data: bytes) -> tuple[BaseException, str] | None:
    """Make a call; what it raised, if anything, and the traceback as text."""
    try:
        function: Callable[[object], object]
        function, item = pickle.loads(data)
        function(item)
    except BaseException as error:  # noqa: BLE001, ASYNC103 -- all of it is the parent's to judge
        return error, traceback.format_exc()  # noqa: ASYNC104
    return None


def _answer(failure: tuple[BaseException, str] | None) -> bytes:
    """What is sent of it; of an error that cannot be sent, its words."""
    if failure is None:
        return frame(None)
    try:
        answer = frame(failure)
        pickle.loads(answer[LENGTH.size :])  # some errors can be pickled, and not made again
    except Exception:  # noqa: BLE001 -- whatever their own code raises
        error, text = failure
        answer = frame((RuntimeError(f"{type(error).__name__}: {error}"), text))
    return answer


def main() -> None:
    """Serve until the input ends."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # What handlers and their child processes read is no request, and what they print no answer.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    frames: SimpleQueue[bytes] = SimpleQueue()
    reader = threading.Thread(target=_read_frames, args=(requests, frames), daemon=True)
    reader.start()
    sys.path[:], program = pickle.loads(frames.get())
    if program is not None:
        _import_main(program)
    while True:
        answers.write(_answer(_call(frames.get())))
        answers.flush()


if __name__ == "__main__":
    main()
