"""The pages of the documentation as what they show: files, and commands with their output.

A code block or `literalinclude` with a caption is a file of that name in the page's folder. A
`console` block is a session there: lines that begin with ``$`` are commands, ``^C`` is Ctrl-C once
the lines above it have been seen, and all others are output that has to come, save that times of
day and durations differ and ``...`` stands for what is left out.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_PATIENCE = 30.0  # seconds for a step that takes a second at most on an idle machine
_AT_ONCE = trio.CapacityLimiter(6)  # sessions: most of one is waiting, but not its start
_BLOCK = re.compile(r"^( *)\.\. (code-block|literalinclude):: *(\S*)$")
_OPTION = re.compile(r"^ +:(\S+): *(.*)$")
_TIME = re.compile(r"^\d\d:\d\d:\d\d\.\d{3}")
_DURATION = re.compile(r"\b\d+(\.\d+)?(e[+-]?\d+)? ?m?s\b")


@attrs.frozen
class Block:
    """A block of a page; of a `literalinclude`, `body` is the whole file."""

    language: str
    caption: str
    included: bool
    body: str


def pages() -> list[Path]:
    return sorted(DOCS.rglob("*.rst"))


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of code in a page, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if not (match := _BLOCK.match(line)):
            continue
        indent = len(match[1])
        options: dict[str, str] = {}
        content: list[str] = []
        for below in lines[number + 1 :]:
            if below.strip() and len(below) - len(below.lstrip()) <= indent:
                break
            if not content and (option := _OPTION.match(below)):
                options[option[1]] = option[2]
            elif content or below.strip():
                content.append(below)
        if match[2] == "literalinclude":
            path = page.parent / match[3]
            language = {".py": "python", ".toml": "toml"}[path.suffix]
            body = path.read_text(encoding="utf-8")
        else:
            language = match[3]
            margin = min(
                (len(row) - len(row.lstrip()) for row in content if row.strip()), default=0
            )
            body = "\n".join(row[margin:] for row in content).rstrip() + "\n"
        yield Block(language, options.get("caption", ""), match[2] == "literalinclude", body)


def write_files(page: Path, folder: Path) -> None:
    """Write the files of a page, such that only their user can change them."""
    for block in blocks(page):
        if block.caption:
            path = folder / block.caption
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.body, encoding="utf-8")
            path.chmod(0o644)


@attrs.frozen
class Step:
    """A command of a session, and the output that it has to have before and after Ctrl-C."""

    command: str
    output: tuple[str, ...]
    output_after_interrupt: tuple[str, ...] | None


def steps(session: str) -> Iterator[Step]:
    """The commands of a console block."""
    for part in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        command, *output = [line for line in part.splitlines() if line.strip() not in ("", "...")]
        before, after = output, None
        if "^C" in output:
            place = output.index("^C")
            before, after = output[:place], tuple(output[place + 1 :])
        yield Step(command, tuple(before), after)


async def play(page: Path, folder: Path) -> None:
    """See that the commands of a page do what it shows; its sessions are independent."""
    write_files(page, folder)
    async with trio.open_nursery() as nursery:
        for block in blocks(page):
            if block.language == "console":
                nursery.start_soon(_play, block.body, folder)


async def _play(session: str, folder: Path) -> None:
    status = 0
    shown = True
    async with _AT_ONCE:
        for step in steps(session):
            if step.command == "echo $?":
                assert list(step.output) == [str(status)]
                shown = True
                continue
            assert shown or status == 0
            shown = False
            async with running(step.command, folder) as program:
                await program.has_printed(step.output)
                if step.output_after_interrupt is not None:
                    program.send(signal.SIGINT)
                    await program.has_printed((*step.output, *step.output_after_interrupt))
                status = await program.ended()
    assert shown or status == 0


@attrs.define(eq=False)
class Program:
    """A running process, and what it has printed so far."""

    _process: trio.Process
    _output: bytes = b""
    _over: bool = False
    _news: trio.Event = attrs.Factory(trio.Event)

    @property
    def printed(self) -> str:
        return self._output.decode(errors="replace")

    @property
    def lines(self) -> list[str]:
        return self.printed.splitlines()

    async def has_printed(self, lines: tuple[str, ...]) -> None:
        """Return when all of some lines were printed, in whichever order."""
        expected = Counter(map(_timeless, lines))

        def missing() -> Counter[str]:
            return expected - Counter(map(_timeless, self.lines))

        with trio.move_on_after(_PATIENCE):
            await self._until(lambda: not missing() or self._over)
        if missing():
            wanted = "\n".join(missing())
            raise AssertionError(f"not printed:\n{wanted}\n\nbut only:\n{self.printed}")

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self) -> int:
        """The exit status, once all output has been read."""
        with trio.fail_after(_PATIENCE):
            await self._until(lambda: self._over)
        assert self._process.returncode is not None
        return self._process.returncode

    async def read(self) -> None:
        assert self._process.stdout is not None
        async for data in self._process.stdout:
            self._output += data
            self._tell()
        await self._process.wait()
        self._over = True
        self._tell()

    async def _until(self, done: Callable[[], bool]) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            if done():
                return
            await self._news.wait()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()


@asynccontextmanager
async def running(command: str, folder: Path) -> AsyncGenerator[Program]:
    """A process that is gone when the block is left."""
    words = shlex.split(command)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TRIO_SERVICES__")}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    known = {
        "python": [sys.executable],
        "trio-services": [sys.executable, "-m", "trio_services"],
    }
    process = await trio.lowlevel.open_process(
        [*known[words[0]], *words[1:]],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    program = Program(process)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(program.read)
        try:
            yield program
        finally:
            process.kill()  # does nothing to one that has ended
            with trio.move_on_after(_PATIENCE, shield=True):
                await process.wait()
            nursery.cancel_scope.cancel()


def _timeless(line: str) -> str:
    """A line without what differs from run to run."""
    return _DURATION.sub("TIME", _TIME.sub("TIME", line.rstrip()))
