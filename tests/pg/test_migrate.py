"""Migrations: what is applied, what is refused, and who applies."""

from __future__ import annotations

import string
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import LiteralString

import pytest
import trio
from hypothesis import given, strategies as st

from trio_services import pg
from trio_services.errors import MigrationFailed, SchemaMismatch
from trio_services.pg import Applied, Migration, migrate, plan, read_migrations

from .server import Server

ORDERS = "create table orders (id int primary key);"
NOTES = "alter table orders add note text;\ninsert into orders values (1, 'first');"


@pytest.fixture
def url(server: Server) -> str:
    """A database in which nothing was ever migrated."""
    server.execute("drop schema if exists trio_services cascade")
    server.execute("drop schema public cascade; create schema public")
    return server.url


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "0001_orders.sql", ORDERS)
    write(tmp_path, "0002_notes.sql", NOTES)
    return tmp_path


def write(folder: Path, name: str, sql: str) -> None:
    (folder / name).write_text(sql, encoding="utf-8")


async def value(url: str, sql: LiteralString) -> object:
    async with await pg.connect(url) as connection:
        row = await (await connection.execute(sql)).fetchone()
    return row and row[0]


def files(migrations: Sequence[Migration | Applied]) -> list[str]:
    return [one.file for one in migrations]


# -- with a database -----------------------------------------------------------------------


async def test_migrations_are_applied_in_order_and_booked(url: str, folder: Path) -> None:
    applied = await migrate(url, folder)

    assert files(applied) == [
        "0001_migrations.sql",
        "0002_queue.sql",
        "0001_orders.sql",
        "0002_notes.sql",
    ]
    assert files(await pg.applied_migrations(url)) == files(applied)
    assert await value(url, "select note from orders") == "first"


async def test_migrations_are_applied_once(url: str, folder: Path) -> None:
    await migrate(url, folder)
    assert await migrate(url, folder) == []
    assert await value(url, "select count(*) from orders") == 1


async def test_only_new_migrations_are_applied(url: str, folder: Path) -> None:
    await migrate(url, folder)
    write(folder, "0003_more.sql", "create table more ()")
    assert files(await migrate(url, folder)) == ["0003_more.sql"]


async def test_of_ten_who_start_at_once_one_applies(url: str, folder: Path) -> None:
    applied: list[list[str]] = []

    async def start() -> None:
        applied.append(files(await migrate(url, folder)))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(start)

    everything = ["0001_migrations.sql", "0002_queue.sql", "0001_orders.sql", "0002_notes.sql"]
    assert sorted(applied) == [[]] * 9 + [everything]


async def test_failed_migration_is_rolled_back_and_told_with_its_line(
    url: str, folder: Path
) -> None:
    write(folder, "0003_broken.sql", "create table half ();\n\nselect colour from orders;")

    with pytest.raises(MigrationFailed) as caught:
        await migrate(url, folder)

    assert str(caught.value) == '0003_broken.sql:3: column "colour" does not exist'
    assert await value(url, "select to_regclass('half') is null")
    assert files(await pg.applied_migrations(url))[-1] == "0002_notes.sql"


async def test_migration_that_failed_is_applied_when_it_was_mended(url: str, folder: Path) -> None:
    write(folder, "0003_more.sql", "create tabel more ()")
    with pytest.raises(MigrationFailed):
        await migrate(url, folder)
    write(folder, "0003_more.sql", "create table more ()")
    assert files(await migrate(url, folder)) == ["0003_more.sql"]


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_migration_that_ends_its_transaction_is_refused(
    url: str, folder: Path, end: str
) -> None:
    write(folder, "0003_more.sql", f"create table more (); {end}")
    with pytest.raises(MigrationFailed, match="leave BEGIN and COMMIT out"):
        await migrate(url, folder)
    assert files(await pg.applied_migrations(url))[-1] == "0002_notes.sql"


async def test_cancelled_migration_is_rolled_back_and_lets_the_next_one_in(
    url: str, folder: Path
) -> None:
    write(folder, "0003_slow.sql", "create table slow (); select pg_sleep(30)")
    with trio.move_on_after(0.5) as scope:
        await migrate(url, folder)
    assert scope.cancelled_caught

    write(folder, "0003_slow.sql", "create table slow ()")
    with trio.fail_after(5):
        assert files(await migrate(url, folder)) == ["0003_slow.sql"]


async def test_schema_of_a_newer_version_is_refused_and_nothing_changed(
    url: str, folder: Path
) -> None:
    await migrate(url, folder)
    (folder / "0002_notes.sql").unlink()
    with pytest.raises(SchemaMismatch) as caught:
        await migrate(url, folder)
    assert caught.value.problems == (
        "0002_notes.sql of application was applied by a newer version than this one; run that, or "
        "one newer still",
    )


async def test_database_whose_files_are_not_looked_at_is_not_judged_by_them(
    url: str, folder: Path
) -> None:
    await migrate(url, folder)
    assert await migrate(url) == []


async def test_nothing_was_applied_to_a_new_database(url: str) -> None:
    assert await pg.applied_migrations(url) == []


# -- files ---------------------------------------------------------------------------------


def test_framework_has_migrations_of_its_own() -> None:
    assert files(read_migrations())[0] == "0001_migrations.sql"


def test_files_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("10_ten.sql", "9_nine.sql", "0011_eleven.sql", "README"):
        write(tmp_path, name, "")
    assert files(read_migrations(tmp_path))[2:] == ["9_nine.sql", "10_ten.sql", "0011_eleven.sql"]


def test_everything_that_is_wrong_with_files_is_told(tmp_path: Path) -> None:
    for name in ("orders.sql", "0000_zero.sql", "1_one.sql", "01_uno.sql"):
        write(tmp_path, name, "")
    (tmp_path / "0002_bytes.sql").write_bytes(b"\xff")
    with pytest.raises(SchemaMismatch) as caught:
        read_migrations(tmp_path)
    assert caught.value.problems == (
        f'{tmp_path}/0000_zero.sql: its name is not like "0002_add_orders.sql"',
        f"{tmp_path}/0002_bytes.sql: it is not UTF-8",
        f"{tmp_path}/1_one.sql: it has the number of 01_uno.sql; give it another",
        f'{tmp_path}/orders.sql: its name is not like "0002_add_orders.sql"',
    )


def test_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SchemaMismatch, match="nowhere: No such file"):
        read_migrations(tmp_path / "nowhere")


def test_newlines_of_another_system_make_no_difference(tmp_path: Path) -> None:
    (tmp_path / "1_one.sql").write_bytes(b"select 1;\n")
    [*_, unix] = read_migrations(tmp_path)
    (tmp_path / "1_one.sql").write_bytes(b"select 1;\r\n")
    [*_, windows] = read_migrations(tmp_path)
    assert unix.checksum == windows.checksum


# -- the plan ------------------------------------------------------------------------------


def migration(number: int, sql: str = "") -> Migration:
    return Migration("application", number, f"{number}_file.sql", sql)


def booked(one: Migration) -> Applied:
    return Applied(one.source, one.number, one.file, one.checksum, datetime(2026, 1, 1, tzinfo=UTC))


def test_file_that_has_changed_is_refused() -> None:
    with pytest.raises(SchemaMismatch, match=r"1_file\.sql of application is not what was applied"):
        plan([migration(1, "new"), migration(2)], [booked(migration(1, "old"))])


def test_file_that_is_missing_is_refused() -> None:
    with pytest.raises(SchemaMismatch, match=r"1_file\.sql of application was applied, and is not"):
        plan([migration(2)], [booked(migration(1)), booked(migration(2))])


def test_file_that_comes_too_late_is_refused() -> None:
    with pytest.raises(SchemaMismatch, match=r"1_file\.sql of application comes too late, 2_file"):
        plan([migration(1), migration(2)], [booked(migration(2))])


texts = st.dictionaries(st.integers(1, 8), st.sampled_from(string.ascii_lowercase[:2]))


@given(texts, texts)
def test_plan_goes_on_exactly_from_a_beginning_of_the_files(
    there: dict[int, str], books: dict[int, str]
) -> None:
    migrations = [migration(number, there[number]) for number in sorted(there)]
    applied = [booked(migration(number, books[number])) for number in sorted(books)]
    beginning = [(one.number, one.checksum) for one in migrations[: len(applied)]]
    fits = beginning == [(one.number, one.checksum) for one in applied]
    if not migrations:
        assert plan(migrations, applied) == []  # nobody asks about these files
    elif fits:
        assert plan(migrations, applied) == migrations[len(applied) :]
    else:
        with pytest.raises(SchemaMismatch):
            plan(migrations, applied)
