"""Where alerts go: a webhook of our own, or whatever Apprise knows."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trio

from ..secrets import Secret
from ._webhook import post

if TYPE_CHECKING:
    from apprise import NotifyBase

Content = Mapping[str, object]
Sink = Callable[[Content], Awaitable[None]]
"""Delivers what a webhook gets; `title` and `text` of it are what a person does."""

_WEBHOOKS = ("http", "https")


class SinkFailed(Exception):
    """Apprise could not deliver; it does not say why in a form without secrets."""


def check_alert_url(text: str) -> None:
    """Refuse what cannot be the address of a sink; says nothing of it, as it may be secret.

    Raises:
        ValueError: in one sentence, what is wrong.
    """
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(
            "it is not an address: it holds spaces, line ends or other characters that have to be "
            "percent-encoded"
        )
    scheme, separator, rest = text.partition("://")
    if not separator or not scheme or not rest:
        raise ValueError('it is not an address; expected text like "https://HOST/PATH"')
    if scheme.lower() == "file":
        raise ValueError('it is a file, which nobody is told of; expected "https://HOST/PATH"')
    if scheme.lower() not in _WEBHOOKS:
        return
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError:  # whose own words may quote a part of it
        host, port = None, 0
    else:
        if url.username is not None or url.password is not None:
            raise ValueError("a webhook takes no user and password; write json:// or jsons://")
    if not host or port == 0:
        raise ValueError('its host or port is wrong; expected "https://HOST/PATH"')


def open_sink(url: Secret) -> Sink:
    """What delivers to an address; nothing is sent yet.

    Raises:
        ValueError: there cannot be such an address, or Apprise is needed and not there, or does not
            know it; does not show the address.
    """
    text = url.reveal()
    check_alert_url(text)
    if (scheme := urlsplit(text).scheme) in _WEBHOOKS:
        # Here, since reading what is trusted takes a while.
        return partial(post, text, ssl.create_default_context() if scheme == "https" else None)
    try:
        import apprise
    except ImportError:
        raise ValueError(
            "an address that is not http:// or https:// needs Apprise; "
            "install trio-services[alerts]"
        ) from None
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # it tells addresses, with all
    asset = apprise.AppriseAsset(http_redirects=False)
    service = apprise.Apprise.instantiate(  # pyright: ignore[reportUnknownMemberType]
        text, asset=asset
    )
    if service is None:
        raise ValueError("it is not an address that Apprise knows")
    # One at a time: a delivery that was given up keeps its thread, and the next waits for it.
    return partial(_notify, service, trio.CapacityLimiter(1))


async def _notify(service: NotifyBase, limiter: trio.CapacityLimiter, content: Content) -> None:
    """Deliver through Apprise, in a thread.

    Raises:
        SinkFailed: it was not delivered.

    Cancellation: at any time; the thread goes on until Apprise gives up.
    """
    send = partial(service.notify, body=str(content["text"]), title=str(content["title"]))
    if not await trio.to_thread.run_sync(send, limiter=limiter, abandon_on_cancel=True):
        raise SinkFailed("Apprise could not deliver it")
