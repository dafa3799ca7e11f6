"""Orders, and a mail for each that was committed; `DATABASE_URL` says where."""

import os

import attrs
import trio

from trio_services import Child, Supervisor, Workers, open_supervisor, pg

URL = os.environ["DATABASE_URL"]

database = pg.open_pool(URL, name="database")


@attrs.frozen
class Email:
    """What is to be sent."""

    to: str
    text: str


emails = pg.Queue[Email](database, "emails")
sent = trio.Event()


async def send(email: Email) -> None:
    """Send one; it may be called twice for the same if a process dies meanwhile."""
    await trio.sleep(0.01)
    print(f"to {email.to}: {email.text}", flush=True)
    if email.to == "bob":
        sent.set()


async def order(number: int, customer: str) -> None:
    """Take an order; the mail is put with it, or not at all."""
    async with database.transaction() as connection:
        await connection.execute("INSERT INTO mail_orders VALUES (%s, %s)", (number, customer))
        await emails.put(Email(customer, f"order {number}"), connection=connection)


async def main() -> None:
    """Take two orders, and send their mails."""
    await pg.migrate(URL)
    tree = Supervisor("shop", [database, Child(Workers(emails, send), after=["database"])])
    async with open_supervisor(tree):
        async with database.transaction() as connection:
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS mail_orders (number int, customer text)"
            )
        await order(1, "ada")
        await order(2, "bob")
        await sent.wait()
    print(emails.statistics())


if __name__ == "__main__":
    trio.run(main)
