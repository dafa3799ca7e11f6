"""What a dropped file holds: rows, and the orders that they should be."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import date
from decimal import Decimal, InvalidOperation

import attrs

COLUMNS = ("order_id", "customer", "amount", "currency", "placed_on")


class Malformed(Exception):
    """A row, or a whole file, that cannot be understood, and will not be at a second look."""


@attrs.frozen
class Order:
    """One order; `cents` is its amount in hundredths of the currency."""

    id: str
    customer: str
    cents: int
    currency: str
    placed_on: date


@attrs.define(eq=False)
class File:
    """A file on its way through the queue: which of its lines are still to be settled."""

    name: str
    digest: str
    open_lines: set[int] = attrs.field(factory=set[int])
    all_read: bool = False

    @property
    def finished(self) -> bool:
        """Whether every row became an order or a dead letter."""
        return self.all_read and not self.open_lines


@attrs.frozen
class Row:
    """A line of a file; line 0 stands for the file as a whole, with what is wrong with it."""

    file: File
    line: int
    values: tuple[str, ...] = ()
    fault: str = ""


def rows_of(file: File, content: bytes) -> Iterator[Row]:
    """The rows of a file; of one that is not CSV, a single row that says so."""
    try:
        if b"\0" in content:
            raise Malformed("not a CSV file: it holds NUL bytes")
        text = io.StringIO(content.decode("utf-8-sig"), newline="")
        lines = csv.reader(text, strict=True)
        if tuple(next(lines, ())) != COLUMNS:
            raise Malformed(f"not a file of orders: its first line is not {','.join(COLUMNS)}")
    except (Malformed, UnicodeDecodeError, csv.Error) as error:
        yield Row(file, 0, fault=str(error))
        return
    while True:
        try:
            values = next(lines)
        except StopIteration:
            return
        except csv.Error as error:  # of this line; the next may be sound
            yield Row(file, lines.line_num, fault=str(error))
        else:
            if values:  # an empty line is none
                yield Row(file, lines.line_num, tuple(values))


def parse(row: Row) -> Order:
    """The order that a row is.

    Raises:
        Malformed: it is none.
    """
    if row.fault:
        raise Malformed(row.fault)
    if len(row.values) != len(COLUMNS):
        raise Malformed(f"{len(row.values)} values where there should be {len(COLUMNS)}")
    order_id, customer, amount, currency, placed_on = (value.strip() for value in row.values)
    if not order_id:
        raise Malformed("no order_id")
    try:
        cents = Decimal(amount) * 100
        if cents != cents.to_integral_value():
            raise Malformed(f"the amount {amount!r} has fractions of a cent")
        return Order(order_id, customer, int(cents), currency, date.fromisoformat(placed_on))
    except (InvalidOperation, OverflowError):
        raise Malformed(f"the amount {amount!r} is no number") from None
    except ValueError:
        raise Malformed(f"the date {placed_on!r} is not like 2026-11-02") from None
