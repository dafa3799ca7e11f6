"""The command `trio-services`."""

from ._main import main as main
