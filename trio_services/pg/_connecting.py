"""Opening a connection: the addresses of its hosts, each tried in turn within its time."""

from __future__ import annotations

import os
from ipaddress import ip_address

import trio
from psycopg import OperationalError
from psycopg.abc import ConnDict, ConnParam
from psycopg.conninfo import (
    conninfo_attempts,
    conninfo_to_dict,
    make_conninfo,
    timeout_from_conninfo,
)
from psycopg.errors import ConnectionTimeout, finish_pgconn
from psycopg.pq import ConnStatus, PGconn, PollingStatus
from psycopg.pq.abc import PGconn as AnyPGconn

# With the defaults of libpq and of the system, a connection that was cut is not missed for hours.
_DEFAULTS: ConnDict = {
    "connect_timeout": 5,  # seconds for each address
    "keepalives_idle": 5,  # seconds until a silent connection is looked after
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds until what was sent must have been received
}


def connection_parameters(conninfo: str, **kwargs: ConnParam) -> ConnDict:
    """What to connect with: what is given, and time-outs where none are.

    A service file, which only libpq reads, is taken to say all that matters.
    """
    given = conninfo_to_dict(conninfo, **kwargs)
    if "service" in given or "PGSERVICE" in os.environ:
        return given
    defaults = dict(_DEFAULTS)
    if "PGCONNECT_TIMEOUT" in os.environ:
        del defaults["connect_timeout"]
    return defaults | given


async def open_pgconn(parameters: ConnDict) -> AnyPGconn:
    """Connect to the first address that can be connected to.

    Raises:
        OperationalError: none could. It is the last failure; when there were several, its message
            tells all of them.

    Cancellation: at any time; a look-up of a name is left to end by itself, in its thread.
    """
    timeout = timeout_from_conninfo(parameters)
    if _names_hosts(parameters):
        attempts = await trio.to_thread.run_sync(
            conninfo_attempts, parameters, abandon_on_cancel=True
        )
    else:
        attempts = conninfo_attempts(parameters)
    failures: list[tuple[OperationalError, str]] = []
    for attempt in attempts:
        try:
            return await _attempt(make_conninfo("", **attempt), timeout)
        except OperationalError as error:
            place = ", ".join(
                f"{key}: {attempt.get(key)!r}" for key in ("host", "port", "hostaddr")
            )
            failures.append((error, place))
    last, _ = failures[-1]
    if len(failures) > 1:
        told = "\n".join(f"- {place}: {error}" for error, place in failures)
        last = type(last)(
            f"{last}\nMultiple connection attempts failed. All failures were:\n{told}",
            pgconn=last.pgconn,
        )
    raise last.with_traceback(None)


async def _attempt(conninfo: str, timeout: float) -> AnyPGconn:
    pgconn = PGconn.connect_start(conninfo.encode())
    try:
        with trio.fail_after(timeout):  # noqa: ASYNC912 -- it waits at least once
            while (status := _poll(pgconn)) != PollingStatus.OK:
                if status == PollingStatus.READING:
                    await trio.lowlevel.wait_readable(pgconn.socket)
                elif status == PollingStatus.WRITING:
                    await trio.lowlevel.wait_writable(pgconn.socket)
                else:
                    raise OperationalError(
                        f"connection failed: {pgconn.get_error_message()}",
                        pgconn=finish_pgconn(pgconn),
                    )
    except trio.TooSlowError:
        pgconn.finish()
        raise ConnectionTimeout("connection timeout expired") from None
    except BaseException:
        pgconn.finish()
        raise
    pgconn.nonblocking = 1
    return pgconn


def _poll(pgconn: AnyPGconn) -> int:
    if pgconn.status == ConnStatus.BAD:
        raise OperationalError(f"connection is bad: {pgconn.get_error_message()}", pgconn=pgconn)
    return pgconn.connect_poll()


def _names_hosts(parameters: ConnDict) -> bool:
    """Whether there is a name that has to be looked up, which takes a thread."""
    if parameters.get("hostaddr") or os.environ.get("PGHOSTADDR"):
        return False
    hosts = str(parameters.get("host") or os.environ.get("PGHOST", ""))
    return any(
        host and not host.startswith(("/", "@")) and not _is_address(host)
        for host in hosts.split(",")
    )


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
