"""When a configuration file has changed, and is whole again.

Theory. What counts is what is in the files, looked at again and again by their paths. So it makes
no difference how they change: an editor that renames, a symbolic link that is swapped somewhere on
the way, a bind mount, a network file system that tells nobody. Notifications by the kernel would be
needed for each folder and link on the way, come for a file that is half written too, and do not
come at all on some file systems.

A file that is written in place is torn until its writer is done, and may be a valid one even so:
the beginning of a document often is. So a change is let settle, longer if the file is still the
same one and was not put in the place of another; and the mere beginning of what is in force is
never taken for a change, since a writer that died leaves just that.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import attrs

from ._disk import UnreadableError, read_regular_file

_REPLACED = 0.25  # seconds in which a file that took the place of another stays as it is
_WRITTEN = 1.0  # and one that was written in place
_LARGEST = 2 * 1024 * 1024


@attrs.frozen
class Look:
    """What is in the files.

    Args:
        content: of the configuration; None where it cannot be read.
        identity: which file that is.
        others: the contents of further files.
    """

    content: bytes | None
    identity: tuple[int, int]
    others: tuple[bytes | None, ...] = ()

    def is_like(self, other: Look) -> bool:
        """Whether the same is in the files."""
        return (self.content, self.others) == (other.content, other.others)


class Verdict(Enum):
    """What to make of a look."""

    SAME = "nothing has changed"
    SETTLING = "it has changed, and may do so again"
    CHANGED = "it has changed"
    TORN = "it is only the beginning of what is in force"


@attrs.define
class Settling:
    """Tells changes from half a change. Pure: looks and times come in as arguments.

    Args:
        handled: the look after which something was done last.
    """

    handled: Look
    _pending: Look | None = attrs.field(default=None, init=False)
    _since: float = attrs.field(default=0.0, init=False)

    def judge(self, look: Look, now: float, in_force: bytes) -> Verdict:
        """What to make of a look at the files.

        Args:
            look: what is in them.
            now: in seconds.
            in_force: the configuration that was applied last.
        """
        if look.is_like(self.handled):
            self._pending = None
            self.handled = look
            return Verdict.SAME
        if self._pending is None or not look.is_like(self._pending):
            self._pending, self._since = look, now
        in_place = look.identity == self.handled.identity
        if now - self._since < (_WRITTEN if in_place else _REPLACED):
            return Verdict.SETTLING
        before, self.handled = self.handled, look
        self._pending = None
        content = look.content
        if content is not None and content != in_force and in_force.startswith(content.rstrip()):
            return Verdict.TORN
        if content is None and before.content is None:
            return Verdict.SAME
        return Verdict.CHANGED


def look_at(path: Path, others: Sequence[Path]) -> Look:
    """What is in a configuration file, and in others. Blocks for as long as that takes."""
    try:
        status = path.stat()
        identity = (status.st_dev, status.st_ino)
    except OSError:
        identity = (0, 0)
    return Look(_content(path), identity, tuple(_content(other) for other in others))


def _content(path: Path) -> bytes | None:
    try:
        return read_regular_file(path, largest=_LARGEST, expected="", check=lambda _: None)
    except UnreadableError:
        return None
