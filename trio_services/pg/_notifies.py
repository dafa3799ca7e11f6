"""Receiving notifications, on which nothing is lost that came in the same packet."""

from __future__ import annotations

from psycopg import BaseConnection, Notify

from ._wait import READ, Steps


def arrivals(connection: BaseConnection[object]) -> Steps[None]:
    """Wait for news from the server, and keep the notifications among them in the backlog."""
    while not (yield READ):
        pass
    connection.pgconn.consume_input()
    keep_arrived(connection)


def keep_arrived(connection: BaseConnection[object]) -> None:
    """Keep the notifications in what was received already."""
    pgconn = connection.pgconn
    backlog = connection._notifies_backlog
    while notify := pgconn.notifies():
        if pgconn.notify_handler is not None:
            pgconn.notify_handler(notify)  # keeps it, unless the user has handlers
        if connection._notify_handlers and backlog is not None:
            encoding = connection.info.encoding
            channel, payload = notify.relname.decode(encoding), notify.extra.decode(encoding)
            backlog.append(Notify(channel, payload, notify.be_pid))
