"""`db start | stop | psql | url` as processes: what they print, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from ..pg.serving import folder_of
from .test_command_process import ended, started

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home() -> Generator[Path]:
    with folder_of("me") as folder:
        yield folder


def db(*arguments: str, cwd: Path) -> tuple[int, str, str]:
    """How a command of `db` ended, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "trio_services", "db", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_server_is_started_looked_into_and_stopped(home: Path) -> None:
    with started("db", "start", "var/db", cwd=home) as server:
        assert server.stdout is not None
        url = server.stdout.readline()
        assert url == (
            f"postgresql:///postgres?host={str(home).replace('/', '%2F')}%2Fvar%2Fdb%2Fdata"
            "&user=postgres\n"
        )
        assert server.stderr is not None
        assert "database: ready" in server.stderr.readline()

        assert db("url", "var/db", cwd=home) == (0, url, "")
        status, out, _ = db("psql", "var/db", "-Atc", "select 40 + 2", cwd=home)
        assert (status, out) == (0, "42\n")
        assert db("start", "var/db", cwd=home) == (
            1,
            "",
            f"trio-services db: database in {home}/var/db: process {server.pid} "
            "(trio-services db start) runs its server already\n",
        )
        assert db("stop", "var/db", cwd=home) == (0, "", "")
        assert ended(server)[0] == 0


def test_server_is_stopped_by_sigint(home: Path) -> None:
    with started("db", "start", "db", cwd=home) as server:
        assert server.stderr is not None
        assert "database: ready" in server.stderr.readline()
        server.send_signal(signal.SIGINT)
        assert ended(server)[0] == 0


def test_what_has_no_server_is_told_so_in_one_line(home: Path) -> None:
    where = f"trio-services db: database in {home}/db:"
    assert db("stop", "db", cwd=home) == (1, "", f"{where} no server runs\n")
    assert db("psql", "db", cwd=home) == (
        1,
        "",
        f"{where} no server runs; start it by: trio-services db start db\n",
    )
    assert not (home / "db").exists()


def test_server_of_an_application_is_not_stopped(home: Path) -> None:
    program = (
        "import time; from trio_services.pg import EmbeddedServer\n"
        "claim = EmbeddedServer('db')._directory.claim('an application')\n"
        "print('has it', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        result = db("stop", "db", cwd=home)
        process.kill()

    assert result == (
        1,
        "",
        f"trio-services db: database in {home}/db: process {process.pid} (an application) runs its "
        "server; stop that one\n",
    )


def test_directory_that_cannot_be_one_is_refused_in_one_line(home: Path) -> None:
    (home / "letter").write_text("Dear …")
    assert db("start", ".", cwd=home) == (
        1,
        "",
        f"trio-services db: database in {home}: it holds other files, such as letter; give a new "
        "directory\n",
    )


def test_psql_of_a_url_gets_its_password_by_no_command_line(home: Path) -> None:
    fake = home / "bin" / "psql"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\necho "$PGHOST $PGUSER $PGPASSWORD $PGDATABASE" "$@"')
    fake.chmod(0o755)
    code = (
        "import sys, trio_services.pg as pg\n"
        f"pg.find_psql = lambda: {str(fake)!r}\n"
        "from trio_services.cli import main; main(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "db", "psql", "postgresql://ann:secret@host/orders", "-At"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "host ann secret orders -At\n"


def test_url_of_elsewhere_has_no_server_to_start(home: Path) -> None:
    status, _, err = db("start", "postgresql://host/orders", cwd=home)
    assert status == 2
    assert "takes a directory" in err


def test_database_that_does_not_answer_is_told_so_without_a_traceback(home: Path) -> None:
    status, out, err = db("status", "postgresql://127.0.0.1:1/orders", cwd=home)
    assert (status, out) == (1, "")
    assert err.startswith("trio-services db: ")
    assert "Traceback" not in err


def test_migrations_are_applied_and_shown_with_no_server_running(home: Path) -> None:
    (home / "sql").mkdir()
    (home / "sql" / "0001_orders.sql").write_text("create table orders ()")

    status, out, _ = db("status", "db", "--sql", "sql", cwd=home)
    assert (status, out.splitlines()) == (
        1,
        [
            "trio_services  0001_migrations.sql: to be applied",
            "trio_services  0002_queue.sql: to be applied",
            "application    0001_orders.sql: to be applied",
        ],
    )
    assert not (home / "db").exists()
    assert db("migrate", "db", "--sql", "sql", cwd=home) == (
        0,
        "applied 0001_migrations.sql of trio_services\napplied 0002_queue.sql of trio_services\n"
        "applied 0001_orders.sql of application\n",
        "",
    )
    assert db("migrate", "db", "--sql", "sql", cwd=home) == (0, "nothing to apply\n", "")
    status, out, _ = db("status", "db", "--sql", "sql", cwd=home)
    assert status == 0
    assert out.startswith("trio_services  0001_migrations.sql: applied 20")

    (home / "sql" / "0001_orders.sql").write_text("create table orders (id int)")
    assert db("migrate", "db", "--sql", "sql", cwd=home) == (
        1,
        "",
        "trio-services db: 0001_orders.sql of application is not what was applied; restore it, and "
        "put the change into a file with a new number\n",
    )


APPLICATION = """\
[host]
imports = ["shop"]

[database]
url = "embedded:var/db"
migrations = "sql"

[services.sell]
use = "shop:sell"
after = ["database"]
leader_only = true
"""
SHOP = """\
import trio
from trio_services import pg

async def sell(pool: pg.Pool):
    async with pool.transaction() as connection:
        await pg.current_term().fence(connection)
        await connection.execute("INSERT INTO sales VALUES (42)")
    print("open", flush=True)
    await trio.sleep_forever()
"""


def write_sql(home: Path) -> None:
    (home / "sql").mkdir()
    (home / "sql" / "0001_sales.sql").write_text("CREATE TABLE sales (amount int)")


def test_folder_of_migrations_is_the_one_of_the_configuration(home: Path) -> None:
    write_sql(home)
    config = home / "config.toml"
    config.write_text(APPLICATION)
    config.chmod(0o600)

    status, out, _ = db("status", "config.toml", cwd=home)

    assert status == 1
    assert out.splitlines()[-1] == "application    0001_sales.sql: to be applied"


def test_application_runs_the_database_of_its_configuration(home: Path) -> None:
    (home / "shop.py").write_text(SHOP)
    write_sql(home)
    (home / "config.toml").write_text(APPLICATION)
    (home / "config.toml").chmod(0o600)

    with started("run", str(home / "config.toml"), cwd=Path("/")) as application:
        assert application.stdout is not None
        assert application.stdout.readline() == "open\n"
        status, out, _ = db("psql", "config.toml", "-Atc", "select * from sales", cwd=home)
        assert (status, out) == (0, "42\n")
        assert db("stop", "config.toml", cwd=home) == (
            1,
            "",
            f"trio-services db: database in {home}/var/db: process {application.pid} (application "
            "app) runs its server; stop that one\n",
        )
        application.send_signal(signal.SIGTERM)
        assert ended(application)[0] == 0


def test_configuration_that_is_wrong_or_has_no_database_is_refused(home: Path) -> None:
    config = home / "config.toml"
    config.write_text(APPLICATION.replace("embedded:var/db", "mysql://host/shop"))
    config.chmod(0o600)
    status, out, err = db("url", "config.toml", cwd=home)
    assert (status, out) == (2, "")
    assert err.startswith("config.toml:database.url: it is not the URL of a database;")

    config.write_text(
        APPLICATION.replace(
            '[database]\nurl = "embedded:var/db"\nmigrations = "sql"\n', ""
        ).replace('after = ["database"]', "")
    )
    status, out, err = db("url", "config.toml", cwd=home)
    assert (status, out) == (2, "")
    assert "config.toml has no [database] table" in err


def test_check_shows_the_database_without_its_password(home: Path) -> None:
    (home / "shop.py").write_text(SHOP)
    write_sql(home)
    config = home / "config.toml"
    config.write_text(APPLICATION.replace('"embedded:var/db"', '{ env = "SHOP_URL" }'))
    config.chmod(0o600)
    done = subprocess.run(
        [sys.executable, "-m", "trio_services", "check", "config.toml"],
        cwd=home,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SHOP_URL": "postgresql://ann:secret@host:5433/shop",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "postgresql://host:5433/shop" in done.stdout
    assert "secret" not in done.stdout + done.stderr
