"""Migrations: numbered SQL files, each applied once, in a transaction, in order.

Theory. A file is booked in a table in the transaction that applies it, so both happen or neither.
Whoever migrates holds an advisory lock of the session: of many who start at once, one applies, and
the others wait and find nothing to do. The lock goes with the connection, however that ends. The
first of the framework's files makes the books.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import attrs
from psycopg import errors
from psycopg.pq import TransactionStatus

from ..errors import MigrationFailed, SchemaMismatch
from ._connection import Connection, connect

FRAMEWORK = "trio_services"
APPLICATION = "application"

_LOCK = 0x7472_696F_0001  # "trio"; any number does, as long as it stays the same
_FILE = re.compile(r"(\d+)_(\w+)\.sql")
_FRAMEWORKS_FILES = Path(__file__).with_name("sql")


@attrs.frozen
class Migration:
    """One numbered file.

    Args:
        source: whose it is: ``trio_services`` or ``application``.
        number: its place; ≥ 1.
        file: its name, as in ``0002_add_orders.sql``.
        sql: what it holds.
    """

    source: str
    number: int
    file: str
    sql: str = attrs.field(repr=False)

    @property
    def checksum(self) -> str:
        """The SHA-256 of what it holds."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


@attrs.frozen
class Applied:
    """What the books of a database say of one migration; `checksum` is of what was applied."""

    source: str
    number: int
    file: str
    checksum: str
    at: datetime


async def migrate(url: str, folder: Path | None = None) -> list[Migration]:
    """Apply what has not been applied to a database yet.

    Args:
        url: as `connect` takes it. The connection must stay the same one behind a proxy.
        folder: the application's files, ``NUMBER_NAME.sql``; the framework's come before them.

    Returns: what was applied now, in order.

    Raises:
        SchemaMismatch: the files are not the continuation of what was applied.
        MigrationFailed: a file failed, and was rolled back; those before it are applied.
        psycopg.OperationalError: there is no connection.

    Cancellation: at any time; the file in hand is rolled back.
    """
    migrations = read_migrations(folder)
    async with await connect(url, autocommit=True) as connection:
        await connection.execute("select pg_advisory_lock(%s)", [_LOCK])
        pending = plan(migrations, await _books(connection))
        for migration in pending:
            await _apply(connection, migration)
    return pending


async def applied_migrations(url: str) -> list[Applied]:
    """What was applied to a database, in order; changes nothing.

    Raises:
        psycopg.OperationalError: there is no connection.
    """
    async with await connect(url, autocommit=True) as connection:
        return await _books(connection)


def read_migrations(folder: Path | None = None) -> list[Migration]:
    """The framework's migrations, and then those in a folder, in order.

    Raises:
        SchemaMismatch: the folder or a file in it cannot be used.
    """
    ours = _read(FRAMEWORK, _FRAMEWORKS_FILES)
    return ours if folder is None else ours + _read(APPLICATION, folder)


def plan(migrations: Sequence[Migration], books: Iterable[Applied]) -> list[Migration]:
    """Those of some migrations that are still to be applied.

    Raises:
        SchemaMismatch: they are not the continuation of what was applied.
    """
    sources = {migration.source for migration in migrations}
    applied = {(one.source, one.number): one for one in books if one.source in sources}
    if problems := list(_problems(migrations, applied)):
        raise SchemaMismatch(problems)
    return [one for one in migrations if (one.source, one.number) not in applied]


def _problems(
    migrations: Sequence[Migration], applied: Mapping[tuple[str, int], Applied]
) -> Iterator[str]:
    ours = {(one.source, one.number): one for one in migrations}
    newest = {one.source: one.number for one in migrations}
    reached: dict[str, Applied] = {}
    for one in applied.values():
        if one.source not in reached or one.number > reached[one.source].number:
            reached[one.source] = one
    for key, was in applied.items():
        if key not in ours:
            if was.number > newest[was.source]:
                yield (
                    f"{was.file} of {was.source} was applied by a newer version than this one; run "
                    "that, or one newer still"
                )
            else:
                yield f"{was.file} of {was.source} was applied, and is not there; restore it"
        elif ours[key].checksum != was.checksum:
            yield (
                f"{ours[key].file} of {was.source} is not what was applied; restore it, and put "
                "the change into a file with a new number"
            )
    for key, file in ours.items():
        last = reached.get(file.source)
        if key not in applied and last is not None and file.number < last.number:
            yield (
                f"{file.file} of {file.source} comes too late, {last.file} was applied before; "
                "give it a higher number"
            )


def _read(source: str, folder: Path) -> list[Migration]:
    """The migrations in a folder, in order."""
    found: dict[int, Migration] = {}
    problems: list[str] = []
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise SchemaMismatch([f"{folder}: {error.strerror}"]) from error
    for path in paths:
        if path.suffix != ".sql":
            continue
        match = _FILE.fullmatch(path.name)
        number = int(match[1]) if match else 0
        if number < 1:
            problems.append(f'{path}: its name is not like "0002_add_orders.sql"')
        elif number in found:
            problems.append(f"{path}: it has the number of {found[number].file}; give it another")
        else:
            try:
                found[number] = Migration(source, number, path.name, path.read_text("utf-8"))
            except OSError as error:
                problems.append(f"{path}: {error.strerror}")
            except UnicodeDecodeError:
                problems.append(f"{path}: it is not UTF-8")
    if problems:
        raise SchemaMismatch(problems)
    return [found[number] for number in sorted(found)]


async def _books(connection: Connection[Any]) -> list[Applied]:
    cursor = await connection.execute("select to_regclass('trio_services.migrations') is null")
    [is_new] = cast("tuple[bool]", await cursor.fetchone())
    if is_new:
        return []
    cursor = await connection.execute(
        "select source, number, name, checksum, applied_at from trio_services.migrations"
        " order by source <> 'trio_services', source, number"
    )
    return [Applied(*row) for row in await cursor.fetchall()]


async def _apply(connection: Connection[Any], migration: Migration) -> None:
    try:
        async with connection.transaction():
            # Without parameters, so that there may be several statements.
            await connection.execute(migration.sql.encode(connection.info.encoding))
            if connection.info.transaction_status != TransactionStatus.INTRANS:
                raise MigrationFailed(
                    migration.file, 0, "it ends its transaction; leave BEGIN and COMMIT out of it"
                )
            await connection.execute(
                "insert into trio_services.migrations (source, number, name, checksum)"
                " values (%s, %s, %s, %s)",
                [migration.source, migration.number, migration.file, migration.checksum],
            )
    except errors.Error as error:
        position = int(error.diag.statement_position or 0)
        line = migration.sql.count("\n", 0, position) + 1 if position else 0
        reason = error.diag.message_primary or str(error)
        raise MigrationFailed(migration.file, line, reason) from error
