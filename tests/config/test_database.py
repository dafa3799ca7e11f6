"""The table `[database]`: where the URL comes from, and what it makes of the tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_services.config._constraints import check_database_url

from .cases import GOOD
from .conftest import Build, Refused

AFTER = GOOD.replace(
    'use = "depot.code:Sort"', 'use = "depot.code:Sort"\nafter = ["database", "deliver"]'
)


def with_database(url: str) -> str:
    return f"{AFTER}\n[database]\nurl = {url}\n"


def test_embedded_server_is_the_first_service_of_the_tree(built: Build, folder: Path) -> None:
    application = built(with_database('"embedded:var/db"'))

    first, *_ = application.tree.children
    assert application.database is not None
    server = application.database.server
    assert server is not None
    assert server is first.service
    assert server.path == folder / "var" / "db"
    assert first.name == "database"
    assert application.tree.graph["sort"] == ("database", "deliver")
    assert not (folder / "var").exists()


def test_database_of_elsewhere_is_no_service_and_is_not_waited_for(built: Build) -> None:
    application = built(with_database('"postgresql://host/depot"'))

    assert application.database is not None
    assert application.database.url == "postgresql://host/depot"
    assert application.database.server is None
    assert application.tree.graph["sort"] == ("deliver",)


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
