"""Every key is found on the line on which it is written."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given, strategies as st

from trio_services.config._lines import line_numbers
from trio_services.config._problems import KeyPath, is_table

TEXT = '''\
# a comment
top = 1
[a.b]  # its header

x = """
[c]
y = 5
"""
list = [  # [d]
  1,
  { z = 2 },
]
in.line = { one = 1, two = { three = 3 } }
"quoted key" = '[e]'

[[a.items]]
name = "first"
[a.items.more]
deep = true
[[a.items]]
name = "second"
[[a.items.inner]]
q = 1
'''


def test_keys_are_on_their_lines() -> None:
    assert line_numbers(TEXT) == {
        ("top",): 2,
        ("a", "b"): 3,
        ("a", "b", "x"): 5,
        ("a", "b", "list"): 9,
        ("a", "b", "in"): 13,
        ("a", "b", "in", "line"): 13,
        ("a", "b", "in", "line", "one"): 13,
        ("a", "b", "in", "line", "two"): 13,
        ("a", "b", "in", "line", "two", "three"): 13,
        ("a", "b", "quoted key"): 14,
        ("a", "items", 0): 16,
        ("a", "items", 0, "name"): 17,
        ("a", "items", 0, "more"): 18,
        ("a", "items", 0, "more", "deep"): 19,
        ("a", "items", 1): 20,
        ("a", "items", 1, "name"): 21,
        ("a", "items", 1, "inner", 0): 22,
        ("a", "items", 1, "inner", 0, "q"): 23,
    }


def test_lines_may_end_as_on_windows() -> None:
    assert line_numbers("a = 1\r\n[b]\r\nc = '''\r\n'''\r\nd = 1\r\n") == {
        ("a",): 1,
        ("b",): 2,
        ("b", "c"): 3,
        ("b", "d"): 5,
    }


NAMES = st.sampled_from(["a", "b", "c", '"d.e"', "'#'"])
VALUES = st.sampled_from(
    ["1", '"[x]"', '"""\n[x]\ny = 1\n"""', "[\n1,\n2 ]", "{ x = 1 }", "'''='''"]
)
STATEMENTS = st.one_of(
    st.builds("[{}.{}]".format, NAMES, NAMES),
    st.builds("[[{}]]".format, NAMES),
    st.builds("{} = {}".format, NAMES, VALUES),
    st.builds("{}.{} = {} # [x]".format, NAMES, NAMES, VALUES),
    st.just(""),
    st.just("# [comment"),
)


@given(st.lists(STATEMENTS, max_size=12))
def test_every_value_of_any_document_has_a_line(statements: list[str]) -> None:
    text = "\n".join(statements)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return

    lines = line_numbers(text)

    for key in leaves(document, ()):
        ways = [key[:length] for length in range(1, len(key) + 1)]
        assert any(way in lines for way in (*ways, (*key, 0))), key
    assert all(1 <= number <= text.count("\n") + 1 for number in lines.values())


def leaves(value: Any, key: KeyPath) -> list[KeyPath]:
    if not is_table(value):
        return [key]
    return [leaf for name, item in value.items() for leaf in leaves(item, (*key, name))]
