"""Asks a running application, at its admin address."""

from __future__ import annotations

import json
import socket
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..admin import Bind

_PATIENCE = 10.0  # seconds; the server has less


class Unanswered(Exception):
    """Why there is no answer, in one line."""


def fetch(bind: Bind, path: str) -> Any:
    """The JSON that is answered to a GET.

    Raises:
        click.UsageError: nobody can listen there.
        Unanswered: nobody does, or not who was expected.
    """
    connection = connection_to(bind, _PATIENCE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        content = response.read()
        if response.status == 200:
            return json.loads(content)
        said = f"{response.status} {response.reason}"
    except (ConnectionRefusedError, FileNotFoundError):
        raise Unanswered(f"nothing listens on {bind}; is the application running?") from None
    except TimeoutError:
        raise Unanswered(f"{bind} does not answer within {_PATIENCE:g} s") from None
    except OSError as error:
        raise Unanswered(f"{bind}: {error.strerror or error}") from error
    except (HTTPException, ValueError):
        said = "no HTTP, or no JSON"
    finally:
        connection.close()
    raise Unanswered(f"what listens on {bind} is not an admin server of this version: {said}")


def connection_to(bind: Bind, within: float) -> HTTPConnection:
    """What asks at an admin address, without Trio; it connects at the first request.

    Args:
        bind: the address.
        within: seconds for each step of asking; > 0.

    Raises:
        click.UsageError: nobody can listen there.
    """
    if bind.path:
        return _UnixConnection(bind.path, within)
    if not bind.port:
        raise click.UsageError("port 0 is any free one; give the port from the application's log")
    host = "127.0.0.1" if bind.host.lower() == "localhost" else bind.host
    return HTTPConnection(host, bind.port, timeout=within)


class _UnixConnection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, within: float) -> None:
        super().__init__("localhost", timeout=within)
        self._within = within
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._within)
        self.sock.connect(self._path)
