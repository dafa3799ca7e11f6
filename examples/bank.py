"""Transfers between two accounts, and somebody who hears of each; `DATABASE_URL` says where."""

import os

import trio

from trio_services import Child, Supervisor, open_supervisor, pg

database = pg.open_pool(os.environ["DATABASE_URL"], name="database")


async def transfer(connection: pg.AnyConnection, amount: int) -> int:
    """Move money from Ada to Bob, and return what Ada has left."""
    cursor = await connection.execute("SELECT money FROM accounts WHERE owner = 'Ada'")
    (money,) = await cursor.fetchone() or (0,)
    left: int = money - amount
    await connection.execute("UPDATE accounts SET money = %s WHERE owner = 'Ada'", (left,))
    await connection.execute(
        "UPDATE accounts SET money = money + %s WHERE owner = 'Bob'", (amount,)
    )
    await connection.execute("SELECT pg_notify('transfers', %s)", (f"{amount} to Bob",))
    return left


async def watch(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Print each transfer once it is committed."""
    async with pg.listen(database, "transfers") as notifications:
        task_status.started()
        async for notification in notifications:
            match notification:
                case pg.Notify(payload=payload):
                    print(f"heard of {payload}")
                case pg.Gap():
                    print("may have missed something")


async def main() -> None:
    """Make three transfers at the same time."""
    tree = Supervisor("bank", [database, Child(watch, after=["database"])])
    async with open_supervisor(tree):
        async with database.transaction() as connection:
            await connection.execute("DROP TABLE IF EXISTS accounts")
            await connection.execute("CREATE TABLE accounts (owner text, money int)")
            await connection.execute("INSERT INTO accounts VALUES ('Ada', 100), ('Bob', 0)")
        async with trio.open_nursery() as nursery:
            for amount in (10, 20, 30):
                nursery.start_soon(database.run_transaction, transfer, amount)
        async with database.connection() as connection:
            cursor = await connection.execute("SELECT owner, money FROM accounts ORDER BY owner")
            async for owner, money in cursor:
                print(f"{owner} has {money}")
        await trio.sleep(0.1)


if __name__ == "__main__":
    trio.run(main)
