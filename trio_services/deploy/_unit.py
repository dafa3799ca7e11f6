"""A systemd unit that gives the application the time that its plan may take. Pure.

Source: systemd.service(5), systemd.exec(5); for the quoting, systemd.syntax(7).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import attrs
from attrs import validators

from ..host import GUARD_AFTER

MARGIN = 5.0
"""Seconds that systemd waits longer than the process may take."""
WATCHDOG = 30.0
"""Seconds after which an application that does not get on is taken to hang."""

_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,30}")


@attrs.frozen
class Unit:
    """A hardened service of systemd; `str()` is its file.

    Args:
        name: of the application.
        command: absolute program with its arguments.
        folder: absolute; the working directory.
        start_within: seconds that a start takes at worst.
        stop_within: seconds that a stop may take.
        user: who runs it; None for one that systemd makes up.
        writable: absolute directories to which it writes.

    Raises:
        ValueError: `user` is no user's name.
    """

    name: str
    command: Sequence[str]
    folder: Path
    start_within: float
    stop_within: float
    user: str | None = attrs.field(
        default=None, validator=validators.optional(validators.matches_re(_USER))
    )
    writable: Sequence[Path] = ()

    @property
    def start_timeout(self) -> int:
        """Seconds after which systemd gives a start up."""
        return math.ceil(self.start_within + MARGIN)

    @property
    def stop_timeout(self) -> int:
        """Seconds after which systemd kills what has not stopped: never before we do so."""
        return math.ceil(self.stop_within + GUARD_AFTER + MARGIN)

    def __str__(self) -> str:
        user = ["DynamicUser=yes"] if self.user is None else [f"User={self.user}"]
        writable = [f"ReadWritePaths={_quoted(str(path))}" for path in self.writable]
        lines = [
            _HEAD.format(name=self.name),
            f"WorkingDirectory={_verbatim(str(self.folder))}",
            f"ExecStart={' '.join(_quoted(word, command=True) for word in self.command)}",
            "ExecReload=/bin/kill -HUP $MAINPID",
            *user,
            f"StateDirectory={self.name}",
            *writable,
            _ENDING.format(
                start=self.start_timeout,
                stop=self.stop_timeout,
                within=f"{self.stop_within:g}",
                guard=f"{GUARD_AFTER:g}",
                watchdog=f"{WATCHDOG:g}",
            ),
        ]
        return "\n".join(lines)


def _verbatim(text: str) -> str:
    """A value in which only specifiers mean something."""
    return text.replace("%", "%%")


def _quoted(text: str, *, command: bool = False) -> str:
    """One word of several; variables are replaced in those of commands only."""
    text = _verbatim(text)
    if command:
        text = text.replace("$", "$$")
    if re.fullmatch(r"[\w@%+=:,./$-]+", text, re.ASCII):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


_HEAD = """\
# Made by `trio-services deploy systemd`; make it again when the plan changes.
[Unit]
Description={name}
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
NotifyAccess=main"""

_ENDING = """\

# The longest start of the plan. Of a stop, the budget of {within} s, {guard} s after which the
# process ends itself, and a margin.
TimeoutStartSec={start}
TimeoutStopSec={stop}
# SIGTERM is for the process alone, which stops its children; SIGKILL is for all of them.
KillMode=mixed
WatchdogSec={watchdog}
# At the watchdog's SIGABRT, the stacks of all threads are in the log.
Environment=PYTHONFAULTHANDLER=1 PYTHONUNBUFFERED=1
Restart=on-failure
RestartSec=5
# A bad configuration does not get better by trying.
RestartPreventExitStatus=2

CapabilityBoundingSet=
LockPersonality=yes
NoNewPrivileges=yes
PrivateDevices=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=read-only
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectSystem=strict
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
UMask=0077

[Install]
WantedBy=multi-user.target
"""
