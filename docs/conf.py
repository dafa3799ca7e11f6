"""How Sphinx builds this documentation: `nox -s docs`."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

from trio_services import __version__  # noqa: E402 -- the checkout's, whatever is installed

project = "trio-services"
author = "The trio-services founders"
copyright = author
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib_trio",
    "configuration_reference",
    "public_names",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"trio-services {release}"
html_show_sphinx = False
smartquotes = False  # a quote in a message or in TOML has to survive being copied

# `Child` in a docstring links to Child; what is no name of ours is still set as code.
default_role = "py:obj"
add_module_names = False
maximum_signature_line_length = 90
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
# What readers know by one name is shown by it, and not spelt out.
autodoc_type_aliases = {
    name: name
    for name in (
        "AnyService",
        "Companion",
        "Handler",
        "Isolation",
        "Missed",
        "OnFailure",
        "Overlap",
        "Restart",
        "Transient",
    )
}
suppress_warnings = ["ref.python"]  # `Queue` is a protocol, and one class of `pg` that has it
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True

# A reference that leads nowhere stops the build, but for what is written loosely (`default_role`)
# and for the names of other packages, whose documentation cannot be relied upon to be in reach.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:obj", r".*"),
    (r"py:class", r"(.*\.)?([TUPE]|Ts|RV|Row)"),
    (r"py:class", r"Query|Params"),  # of psycopg
    (
        r"py:class",
        r"Transient|Handler|Isolation|Missed|OnFailure|Overlap|WhenFull|Restart|Listener|Upgrade"
        r"|datetime|optional",
    ),
    (
        r"py:.*",
        r"(trio|psycopg|collections|datetime|contextlib|contextvars|os|pathlib|types|typing)\..*",
    ),
]
