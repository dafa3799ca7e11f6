"""Deployment: an application among those who start, watch and stop it."""

from ._notify import Notifier as Notifier, open_notifier as open_notifier
from ._systemd import notifying as notifying, telling_of_reload as telling_of_reload
from ._unit import Unit as Unit
