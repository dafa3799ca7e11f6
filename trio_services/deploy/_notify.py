"""systemd's notify protocol: datagrams of assignments to a unix socket.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Generator, Mapping
from contextlib import contextmanager

import attrs

_LONGEST = 1024  # characters of a value; people read it in a line of `systemctl status`


@attrs.define(eq=False)
class Notifier:
    """Tells the service manager how we are; never blocks, and never raises.

    Attributes:
        watchdog: seconds within which the manager wants to hear that we are alive, again and
            again; None where it does not.
    """

    watchdog: float | None
    _address: bytes
    _socket: socket.socket
    _untold: Mapping[str, str] | None = attrs.field(default=None, init=False)

    def tell(self, **assignments: str) -> None:
        """Tell of a state, such as ``READY="1"``, in words, ``STATUS="ready"``, or both.

        What the manager cannot take now, it gets by `remind`, or with the next words; unless there
        is a newer state by then. Line breaks in values become spaces.
        """
        if self._untold is not None and assignments.keys() == {"STATUS"}:
            assignments = {**self._untold, **assignments}
        self._untold = None if self._send(assignments) else assignments

    def remind(self) -> None:
        """Tell of the last state again, if the manager could not take it."""
        if self._untold is not None:
            self.tell(**self._untold)

    def feed_watchdog(self) -> None:
        """Tell that we are alive."""
        self._send({"WATCHDOG": "1"})

    def _send(self, assignments: Mapping[str, str]) -> bool:
        lines = (f"{k}={' '.join(v.split())[:_LONGEST]}" for k, v in assignments.items())
        try:
            self._socket.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)
        except OSError:  # it is restarting, or has more to read than it can
            return False
        return True


@contextmanager
def open_notifier(environment: Mapping[str, str]) -> Generator[Notifier | None]:
    """What tells the service manager that started this process; None if none wants to hear.

    The socket is held all the time, so that it is there when there are no file descriptors.

    Args:
        environment: has the manager's ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID``.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")) or not hasattr(socket, "AF_UNIX"):
        yield None
        return
    name = os.fsencode(address)
    if name.startswith(b"@"):
        name = b"\0" + name[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        yield Notifier(_watchdog(environment), name, sock)


def _watchdog(environment: Mapping[str, str]) -> float | None:
    """Seconds of the watchdog that watches this process, and not one that has started it."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        microseconds = int(environment.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return None
    return microseconds / 1e6 if microseconds > 0 else None
