"""The listening socket: opened by us, so that it is right before the first client and gone after.

Hypercorn would open it late, with the umask's mode for a unix socket, and leave the file behind.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import attrs
import trio

from ._bind import Bind

_BACKLOG = 100
# Milliseconds for which the kernel keeps the unread bytes of a client that we have cut off;
# without it, many minutes.
_USER_TIMEOUT = 5000


@attrs.frozen
class Door:
    """An open listening socket and how clients name it.

    `url` is ``http://host:port`` with the real port, or ``unix:/path``. `hosts` are the `Host`
    headers that mean this server, in lower case; None, on a unix socket, lets any pass: a browser
    that was lured to another name cannot get at one.
    """

    listener: trio.SocketListener
    url: str
    hosts: frozenset[str] | None


@asynccontextmanager
async def open_door(bind: Bind) -> AsyncGenerator[Door]:
    """Listen on `bind`; on exit the socket is closed, and a unix socket's file removed.

    A unix socket is for its owner only (mode 0600) from its first moment. One that a dead process
    left behind is replaced.

    Raises:
        OSError: It cannot be listened on; nothing was left behind.
    """
    if bind.path:
        with _unix_socket(bind.path) as (path, sock):
            async with trio.SocketListener(trio.socket.from_stdlib_socket(sock)) as listener:
                yield Door(listener, f"unix:{path}", None)
    else:
        host = "127.0.0.1" if bind.host.lower() == "localhost" else bind.host
        [listener] = await trio.open_tcp_listeners(bind.port, host=host, backlog=_BACKLOG)
        async with listener:
            if hasattr(socket, "TCP_USER_TIMEOUT"):  # accepted sockets inherit it
                listener.socket.setsockopt(
                    socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT
                )
            port: int = listener.socket.getsockname()[1]
            yield Door(listener, f"http://{_bracketed(host)}:{port}", _names(host, port))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _names(host: str, port: int) -> frozenset[str]:
    hosts = {_bracketed(host).lower(), "localhost", "127.0.0.1", "[::1]"}
    names = {f"{host}:{port}" for host in hosts}
    return frozenset(names | hosts if port == 80 else names)


@contextmanager
def _unix_socket(where: str) -> Generator[tuple[Path, socket.socket]]:
    if not hasattr(socket, "AF_UNIX"):
        raise OSError(errno.EAFNOSUPPORT, "this system's Python has no unix sockets")
    path = Path(where).absolute()  # the working directory may change before it is removed
    _clear_the_way(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(os.fspath(path))
        ours = path.lstat()
        try:
            path.chmod(0o600)  # before `listen`, while nobody can connect yet
            sock.listen(_BACKLOG)
            yield path, sock
        finally:
            _remove(path, ours)


def _clear_the_way(path: Path) -> None:
    """Remove the socket file of a dead process.

    Raises:
        OSError: A living one has it (EADDRINUSE), or it is not a socket (EEXIST).
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "a file that is not a socket is in its place")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog would make us wait; it is a sign of life, too
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _remove(path: Path, ours: os.stat_result) -> None:
    """Remove our socket file, unless it is gone or another process put its own there."""
    try:
        if os.path.samestat(path.lstat(), ours):
            path.unlink()
    except FileNotFoundError:
        pass
