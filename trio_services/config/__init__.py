"""Configuration: from a TOML file, the environment and arguments to an application."""

from ._build import Application as Application, build as build
from ._database import Database as Database, find_database as find_database
from ._durations import Seconds as Seconds, format_duration as format_duration
from ._file import load as load
from ._schema import Configuration as Configuration
