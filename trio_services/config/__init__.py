"""Configuration: from a TOML file, the environment and arguments to an application."""

from ._application import Application as Application, Part as Part
from ._build import build as build
from ._database import Database as Database, find_database as find_database
from ._durations import Seconds as Seconds, format_duration as format_duration
from ._explain import Explained as Explained, explain as explain
from ._file import load as load
from ._json_schema import json_schema as json_schema
from ._live import Live as Live
from ._reload import reloading as reloading
from ._schema import Configuration as Configuration
