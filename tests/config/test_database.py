"""The table `[database]`: where the URL comes from, and what it makes of the tree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trio_services import Schedule, Supervisor, pg
from trio_services.config import Application
from trio_services.config._constraints import check_database_url

from .cases import GOOD
from .conftest import Build, Refused

AFTER = GOOD.replace(
    'use = "depot.code:Sort"', 'use = "depot.code:Sort"\nafter = ["database", "deliver"]'
)


def with_database(url: str) -> str:
    return f"{AFTER}\n[database]\nurl = {url}\n"


def services_of(application: Application) -> dict[str, tuple[str, ...]]:
    """What the first service of the tree consists of, and in which order."""
    first, *_ = application.tree.children
    assert first.name == "database"
    assert isinstance(first.service, Supervisor)
    return dict(first.service.graph)


def test_embedded_server_and_the_pool_are_the_first_of_the_tree(built: Build, folder: Path) -> None:
    application = built(with_database('"embedded:var/db"'))

    assert application.database is not None
    server = application.database.server
    assert server is not None
    assert server.path == folder / "var" / "db"
    assert services_of(application) == {"server": (), "pool": ("server",)}
    assert application.tree.graph["sort"] == ("database", "deliver")
    assert not (folder / "var").exists()


def test_database_of_elsewhere_is_a_pool(built: Build) -> None:
    application = built(with_database('"postgresql://host/depot"'))

    assert application.database is not None
    assert application.database.url == "postgresql://host/depot"
    assert application.database.server is None
    assert services_of(application) == {"pool": ()}
    assert application.tree.graph["sort"] == ("database", "deliver")


def test_migrations_come_after_the_pool_and_before_all_else(built: Build, folder: Path) -> None:
    (folder / "sql").mkdir()
    (folder / "sql" / "0001_items.sql").write_text("create table items (id int)")

    application = built(with_database('"postgresql://host/depot"\nmigrations = "sql"'))

    assert application.database is not None
    assert application.database.migrations == folder / "sql"
    assert services_of(application) == {"pool": (), "migrations": ("pool",)}


def test_migrations_that_cannot_be_used_are_told_before_anything_starts(
    refused: Refused, folder: Path
) -> None:
    (folder / "sql").mkdir()
    (folder / "sql" / "first.sql").touch()

    lines = refused(with_database('"postgresql://host/depot"\nmigrations = "sql"'))

    assert lines == [
        f"config.toml:database.migrations: {folder}/sql/first.sql: its name is not like "
        '"0002_add_orders.sql"'
    ]


NEEDS_POOL = """
import attrs
from trio_services import Service, pg

class Book(Service):
    def __init__(self, pool: pg.Pool) -> None:
        self.pool = pool

    async def run(self) -> None: ...

async def report(pool: pg.Pool) -> None: ...
"""
POOLED = """
[host]
name = "shop"
imports = ["depot"]

[services.book]
use = "depot.books:Book"
leader_only = true

[schedules.report]
call = "depot.books:report"
every = "1m"
"""


@pytest.fixture
def books(folder: Path) -> None:
    (folder / "depot" / "books.py").write_text(NEEDS_POOL)


@pytest.mark.usefixtures("books")
def test_pool_is_given_by_its_type_to_what_then_comes_after_it(built: Build) -> None:
    application = built(POOLED + '[database]\nurl = "postgresql://host/depot"\n')

    assert application.database is not None
    schedule = application.parts["report"].child.service
    assert isinstance(schedule, Schedule)
    call: Any = schedule.call
    assert call.keywords == {"pool": application.database.pool}
    assert application.tree.graph["report"] == ("database",)
    assert application.tree.graph["book"] == ("database",)


@pytest.mark.usefixtures("books")
def test_leader_only_contends_by_the_names_of_application_and_service(built: Build) -> None:
    application = built(POOLED + '[database]\nurl = "postgresql://host/depot"\n')

    only = application.parts["book"].child.service
    assert isinstance(only, pg.LeaderOnly)
    assert application.database is not None
    assert (only.name, only.pool) == ("shop.book", application.database.pool)


@pytest.mark.usefixtures("books")
def test_leader_only_needs_a_database(refused: Refused) -> None:
    assert any(
        line.endswith(
            "services.book.leader_only: needs a database, in which processes agree; add a "
            "[database] table"
        )
        for line in refused(POOLED)
    )


@pytest.mark.parametrize("variable", ["DEPOT_URL", "TRIO_SERVICES__DATABASE__URL"])
def test_url_comes_from_the_environment_and_is_not_shown(built: Build, variable: str) -> None:
    environment = {variable: "postgresql://ann:secret@host/depot"}

    application = built(with_database('{ env = "DEPOT_URL" }'), environment=environment)

    assert application.database is not None
    assert application.database.url == "postgresql://ann:secret@host/depot"
    assert "secret" not in repr(application)


def test_url_comes_from_a_file_beside_the_configuration(built: Build, folder: Path) -> None:
    (folder / "url").write_text("embedded:var/db\n")

    application = built(with_database('{ file = "url" }'))

    assert application.database is not None
    assert application.database.server is not None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "url: it is empty"),
        (b"\xff", "url: it is not UTF-8 text"),
        (None, "url: there is no such file"),
        (
            b"postgresql://ann:secret@[host/depot",
            'its address is wrong; expected "embedded:DIRECTORY" or "postgresql://HOST/DATABASE"',
        ),
    ],
)
def test_url_that_a_file_does_not_give_is_told_without_what_is_in_it(
    refused: Refused, folder: Path, content: bytes | None, problem: str
) -> None:
    if content is not None:
        (folder / "url").write_bytes(content)

    lines = refused(with_database('{ file = "url" }'))

    assert lines == [f"config.toml:database.url: {problem}"]


def test_directory_that_cannot_be_one_is_refused_before_anything_starts(
    refused: Refused, folder: Path
) -> None:
    (folder / "letters").mkdir()
    (folder / "letters" / "letter").touch()

    assert refused(with_database('"embedded:letters"')) == [
        f"config.toml:database.url: database in {folder}/letters: it holds other files, such as "
        "letter; give a new directory"
    ]


def test_lack_of_programs_is_told_with_the_remedy_before_anything_starts(
    refused: Refused, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_services.pg._installation._folders", lambda: iter(()))

    [line] = refused(with_database('"embedded:var/db"'))

    assert line.startswith(
        f"config.toml:database.url: database in {folder}/var/db: there is no PostgreSQL on this "
        "machine; install PostgreSQL's programs by: pip install 'trio-services[embedded]'"
    )


def test_wrong_address_does_not_tell_a_part_of_the_password() -> None:
    with pytest.raises(ValueError, match="its address is wrong") as caught:
        check_database_url("postgresql://ada:hun/ter2@host/orders")
    assert "hun" not in str(caught.value)
