"""The end of a process that does not stop in time, whatever it is doing."""

from __future__ import annotations

import faulthandler
import math
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Self

from ._host import Host

GUARD_AFTER = 2.0
"""Seconds past the stop budget after which the process has ended."""

_STOP_OVERDUE = 3
# The thread goes first, because it can name the services; the watchdog is for when it cannot run.
_AHEAD = 0.5


class Guard:
    """Ends the process when a stop takes too long, even if the event loop does not turn.

    A thread does it that waits on a socket, so that it can be told from a signal handler. Should
    something hold the interpreter lock, so that no thread runs, the watchdog of `faulthandler`
    ends the process a moment later: it needs no lock, but cannot choose the exit status (1).
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._status = _STOP_OVERDUE
        self._deadline = math.inf  # on the monotonic clock
        self._told, self._teller = socket.socketpair()
        self._thread = threading.Thread(target=self._watch, name="stop guard", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._deadline < math.inf and _are_left():
            return  # the interpreter would wait for those threads, for as long as they like
        faulthandler.cancel_dump_traceback_later()
        self._teller.close()
        self._thread.join()
        self._told.close()

    def arm(self) -> None:
        """A stop has begun, and has its budget; safe in a signal handler."""
        if self._deadline == math.inf:
            self._end_within(self._host.stop_within)

    def hurry(self, status: int) -> None:
        """Everything was cancelled, and should end at once; safe in a signal handler."""
        self._status = status
        self._end_within(0.0)

    def _end_within(self, seconds: float) -> None:
        now = time.monotonic()
        self._deadline = min(self._deadline, now + seconds + GUARD_AFTER)
        within = self._deadline - now
        if within > threading.TIMEOUT_MAX:
            return  # nobody will live to see it
        if sys.__stderr__ is not None:
            faulthandler.dump_traceback_later(within, exit=True, file=sys.__stderr__)
        self._teller.send(b"!")

    def _watch(self) -> None:
        while True:
            try:
                if not self._told.recv(1):
                    return  # the process ends by itself
            except TimeoutError:
                self._end()
            # Not zero, which would mean not to wait for what else is to be told.
            self._told.settimeout(max(0.001, self._deadline - _AHEAD - time.monotonic()))

    def _end(self) -> None:
        blamed = "".join(
            f"  {life.name} is {life.state.replace('_', ' ')}\n" for life in self._host.unended()
        )
        text = (
            f"{self._host.name} has not stopped in time, and is ended now. Still there:\n{blamed}"
        )
        if sys.__stderr__ is not None:
            with suppress(OSError, ValueError):  # nobody may be there to read it
                descriptor = sys.__stderr__.fileno()
                # A reader that has stalled, which may be why nothing stops, must not stop this.
                os.set_blocking(descriptor, False)
                os.write(descriptor, text.encode())
                faulthandler.dump_traceback(descriptor, all_threads=True)
                os.set_blocking(descriptor, True)  # others may share it
        os._exit(self._status)


def _are_left() -> bool:
    """Whether threads are left that were not made to end with the process."""
    main = threading.main_thread()
    return any(not thread.daemon and thread is not main for thread in threading.enumerate())
