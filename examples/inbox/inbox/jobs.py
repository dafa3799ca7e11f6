"""What is done with the rows, and the report about it."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import attrs
import trio

from trio_services import TimedOut

from .ledger import Ledger
from .orders import Row, parse


@attrs.frozen
class ImportOptions:
    """Where orders, and rows that are none, end."""

    ledger: Path
    dead_letters: Path


@attrs.frozen
class ReportOptions:
    """What to report about."""

    ledger: Path


def is_transient(error: Exception) -> bool:
    """Whether another attempt may succeed: the ledger was busy, or too slow."""
    return isinstance(error, (sqlite3.OperationalError, OSError, TimedOut))


class ImportRow:
    """Enter the order that a row is into the ledger."""

    def __init__(self, options: ImportOptions) -> None:
        self.ledger = Ledger(options.ledger)

    async def __call__(self, row: Row) -> None:
        """Handle one row."""
        await self.ledger.add(parse(row))
        await settle(row, self.ledger)


class KeepDeadLetter:
    """Append rows that cannot be imported to a file, each once, with the reason."""

    def __init__(self, options: ImportOptions) -> None:
        self.path = options.dead_letters
        self.ledger = Ledger(options.ledger)
        self._one_at_a_time = trio.Lock()
        self._kept: set[tuple[str, str, int]] | None = None

    async def __call__(self, row: Row, error: Exception) -> None:
        """Keep one row."""
        letter: dict[str, object] = {
            "file": row.file.name,
            "digest": row.file.digest,
            "line": row.line,
            "values": row.values,
            "reason": f"{type(error).__name__}: {error}",
        }
        async with self._one_at_a_time:
            await trio.to_thread.run_sync(self._append, letter)
        await settle(row, self.ledger)

    def _append(self, letter: dict[str, object]) -> None:
        if self._kept is None:
            self._kept = self._read()
        key = _key(letter)
        if key in self._kept:
            return  # it was kept before a restart
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(letter) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._kept.add(key)

    def _read(self) -> set[tuple[str, str, int]]:
        """What the file holds; a last line that a crash tore is cut off, and will come again."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            file.seek(0)
            content = file.read()
            whole = content.rfind(b"\n") + 1
            file.truncate(whole)
        return {_key(json.loads(line)) for line in content[:whole].splitlines()}


class PrintTotals:
    """Print what is in the ledger."""

    def __init__(self, options: ReportOptions) -> None:
        self.ledger = Ledger(options.ledger)

    async def __call__(self) -> None:
        """Print one line."""
        totals = await self.ledger.totals()
        sums = ", ".join(f"{cents / 100:,.2f} {name}" for name, cents in totals.cents.items())
        print(f"totals: {totals.orders} orders of {totals.files} files, {sums or 'nothing yet'}")


async def settle(row: Row, ledger: Ledger) -> None:
    """A row has become an order or a dead letter; with the last one its file is finished."""
    row.file.open_lines.discard(row.line)  # once more, if finishing the file has failed
    if row.file.finished:
        await ledger.finish(row.file)


def _key(letter: dict[str, object]) -> tuple[str, str, int]:
    return str(letter["file"]), str(letter["digest"]), int(str(letter["line"]))
