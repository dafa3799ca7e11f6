"""Where the admin server listens, checked before anything starts. Pure: no I/O, no Trio."""

from __future__ import annotations

import ipaddress
import os

import attrs

_SOCKET_PATH_BYTES = 107  # what Linux has room for in a unix socket's address


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # `::ffff:127.0.0.1` is loopback on some Python versions only: no version's word is taken.
    return str(address) == "::1" or (address.version == 4 and address.is_loopback)


def _check_host(bind: Bind, _: attrs.Attribute[str], host: str) -> None:
    if not bind.path and not _is_loopback(host):
        raise ValueError(
            f"host {host!r} is not loopback: binds beyond loopback need a token, which this "
            "version does not have; bind 127.0.0.1 and put a proxy in front"
        )


def _check_port(_: Bind, __: attrs.Attribute[int], port: int) -> None:
    if not 0 <= port <= 65535:
        raise ValueError(f"port {port} is not in 0 to 65535")


def _check_path(bind: Bind, _: attrs.Attribute[str], path: str) -> None:
    if path and (bind.host or bind.port):
        raise ValueError("path: a unix socket has neither host nor port")
    if "\0" in path:
        raise ValueError("path: a unix socket's path cannot hold a NUL")
    if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
        raise ValueError(f"path: a unix socket's path has at most {_SOCKET_PATH_BYTES} bytes")


@attrs.frozen(kw_only=True)
class Bind:
    """A loopback address with its port, or the path of a unix socket; `parse` reads one.

    Args:
        host: A loopback address or `localhost`, which is taken as 127.0.0.1 without asking a
            resolver. Empty for a unix socket.
        port: 0 to 65535; 0 takes any free port.
        path: The unix socket's file. Empty for an address.

    Raises:
        ValueError: In one sentence, which field is wrong and what to write instead.
    """

    host: str = attrs.field(default="", validator=_check_host)
    port: int = attrs.field(default=0, validator=_check_port)
    path: str = attrs.field(default="", validator=_check_path)

    @classmethod
    def parse(cls, text: str) -> Bind:
        """The bind that `text` writes, such that `str()` gives `text` back.

        Args:
            text: ``127.0.0.1:8765``, ``[::1]:8765``, ``localhost:8765`` or
                ``unix:run/admin.sock``.

        Raises:
            ValueError: In one sentence, what is wrong and what to write instead.
        """
        malformed = ValueError(
            f"{text!r} is no address to listen on; write 127.0.0.1:8765, [::1]:8765, "
            "localhost:8765 or unix:run/admin.sock"
        )
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            if not path:
                raise malformed
            return cls(path=path)
        host, colon, digits = text.rpartition(":")
        try:
            port = int(digits)
        except ValueError:
            raise malformed from None
        if not colon:
            raise malformed
        bind = cls(host=host.removeprefix("[").removesuffix("]"), port=port)
        # `int` also reads "+80", "0080" and Arabic digits, and the brackets may be anywhere: what
        # does not come back as it was written was not written as an address.
        if str(bind) != text:
            raise malformed
        return bind

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
