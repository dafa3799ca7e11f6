"""A service that needs a password: `trio-services run letterbox.toml`."""

import attrs

from trio_services import Secret


@attrs.frozen
class Login:
    """Who fetches the letters."""

    user: str
    password: Secret


async def collect(options: Login) -> None:
    """Fetch what has come."""
    await log_in(options.user, options.password.reveal())
    print(f"logged in as {options.user} with {options.password}", flush=True)


async def log_in(user: str, password: str) -> None:
    """Stands for a client of a mail server."""
