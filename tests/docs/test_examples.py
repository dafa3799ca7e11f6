"""The examples and the pages of the documentation do what they say."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
import trio

from ..pg.conftest import server as server
from ..pg.server import Server
from .pages import DOCS, ROOT, blocks, pages, play, running

EXAMPLES = ROOT / "examples"

EVERY_PAGE = [str(page.relative_to(DOCS)) for page in pages()]


async def test_hello_greets_until_it_is_told_to_stop() -> None:
    async with running("python hello.py", EXAMPLES) as program:
        await program.has_printed(("hello world 0",))
        program.send(signal.SIGTERM)
        assert await program.ended() == 0
    assert "hello world 1" not in program.lines


async def test_heartbeat_beats_inside_a_plain_trio_program() -> None:
    async with running("python heartbeat.py", EXAMPLES) as program:
        assert await program.ended() == 0
    assert program.lines == ["beat 0", "beat 1", "beat 2", "stopped"]


def test_heartbeat_takes_no_more_than_twenty_lines() -> None:
    code = (EXAMPLES / "heartbeat.py").read_text().splitlines()
    assert len([line for line in code if line.strip()]) <= 20


async def test_crawler_accounts_for_every_page() -> None:
    async with running("python crawler.py", EXAMPLES) as program:
        assert await program.ended() == 0
    assert program.lines[-3:] == [
        "40 accepted = 37 done + 1 discarded + 2 dead + 0 left",
        "/page/21: not a page at all, attempts: 1",
        "/page/34: not done within its time-out of 0.3 s, attempts: 3",
    ]


async def test_pipeline_ends_by_itself_when_all_is_stored() -> None:
    async with running("python pipeline.py", EXAMPLES) as program:
        assert await program.ended() == 0
    stored = [line for line in program.lines if " orders stored: " in line]
    assert sum(int(line.split()[0]) for line in stored) == 21
    assert sum(int(line.split()[3]) for line in stored) == 594
    assert program.lines[-3:] == [
        "lines: 23 accepted = 21 done + 2 discarded + 0 dead + 0 left",
        "orders: 21 accepted = 21 done + 0 dead + 0 left",
        "priced: 21 accepted = 21 done + 0 dead + 0 left",
    ]


async def test_breaker_lets_the_shop_go_on_without_its_rates() -> None:
    async with running("python breaker.py", EXAMPLES) as program:
        assert await program.ended() == 0
    assert program.lines == [
        "sale 0: 100 euros",
        "shop is degraded",
        "  shop/sell: running, 0 restarts",
        "  shop/keep_rates: backing_off, 2 restarts, breaker open",
        "sale 1: 100 euros or 110 dollars",
        "shop is healthy",
        "  shop/sell: running, 0 restarts",
        "  shop/keep_rates: running, 3 restarts, breaker closed",
    ]


async def test_injection_commits_a_transfer_or_rolls_it_back() -> None:
    async with running("python injection.py", EXAMPLES) as program:
        assert await program.ended() == 0
    assert [line for line in program.lines if "INFO" not in line] == [
        "{'ann': 30, 'bob': 70}",
        "50 euros: CHECK constraint failed: euros >= 0",
        "{'ann': 30, 'bob': 70}",
        "{'ann': 10, 'bob': 90}",
        "the database is closed",
    ]


async def test_polite_stop_finishes_the_transfer_in_hand_and_begins_no_other() -> None:
    async with running("python polite_stop.py", EXAMPLES) as program:
        await program.has_printed(("transfer 1: taken",))
        program.send(signal.SIGTERM)
        assert await program.ended() == 0
    transfers = [line for line in program.lines if line.startswith("transfer ")]
    assert transfers == ["transfer 1: taken", "transfer 1: given"]


async def test_bank_moves_money_and_tells(server: Server) -> None:
    async with running(f"DATABASE_URL='{server.url}' python bank.py", EXAMPLES) as program:
        assert await program.ended() == 0
    heard = {f"heard of {amount} to Bob" for amount in (10, 20, 30)}
    assert set(program.lines) == {*heard, "Ada has 40", "Bob has 60"}


async def test_mail_is_sent_for_each_order_that_was_committed(server: Server) -> None:
    async with running(f"DATABASE_URL='{server.url}' python mail.py", EXAMPLES) as program:
        assert await program.ended() == 0
    assert program.lines == ["to ada: order 1", "to bob: order 2", "2 claimed = 2 done"]


def test_readme_begins_with_hello() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first = re.search(r"^```python\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    docstring, _, program = (EXAMPLES / "hello.py").read_text(encoding="utf-8").partition("\n\n")
    assert docstring == '"""The first program of the README."""'
    assert first is not None
    assert first[1] == program


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exception]:
    """What was wrong with pages; they are played all at once, since most of it is waiting."""
    failures: dict[str, Exception] = {}

    async def try_page(name: str) -> None:
        try:
            await play(DOCS / name, tmp_path_factory.mktemp("page"))
        except Exception as error:
            failures[name] = error

    async def try_all() -> None:
        async with trio.open_nursery() as nursery:
            for name in EVERY_PAGE:
                nursery.start_soon(try_page, name)

    trio.run(try_all)
    return failures


@pytest.mark.parametrize("name", EVERY_PAGE)
def test_page_does_what_it_shows(name: str, played: dict[str, Exception]) -> None:
    if name in played:
        raise played[name]


@pytest.mark.parametrize("name", EVERY_PAGE)
def test_code_of_a_page_is_run_by_its_commands(name: str) -> None:
    page = list(blocks(DOCS / name))
    code = [block for block in page if block.language in ("python", "toml")]
    commands = "\n".join(block.body for block in page if block.language == "console")
    configurations = "\n".join(block.body for block in code if block.language == "toml")
    for block in code:
        if not block.caption:
            assert block.included, block.body  # from a file that is run by a test of its own
        elif block.caption not in commands:
            assert f'"{Path(block.caption).stem}:' in configurations, block.caption


def test_every_example_is_run() -> None:
    tested = Path(__file__).read_text(encoding="utf-8")
    shown = {block.caption for page in pages() for block in blocks(page) if block.included}
    for path in EXAMPLES.glob("*.*"):
        assert f"python {path.name}" in tested or path.name in shown, path.name


@pytest.mark.parametrize("name", EVERY_PAGE)
def test_page_names_no_path_of_the_machine_it_was_written_on(name: str) -> None:
    text = (DOCS / name).read_text(encoding="utf-8")
    assert re.findall(r"/(?:work|tmp|home|root)/\S*", text) == []
