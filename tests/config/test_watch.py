"""Changes of a file are told from half a change."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from trio_services.config._watch import Look, Settling, Verdict, look_at

from .cases import GOOD

FORCE = GOOD.encode()
NEW = GOOD.replace("count = 2", "count = 3").encode()


def verdicts(
    settling: Settling, *looks: Look, step: float = 0.5, since: float = 0.0
) -> list[Verdict]:
    """What is made of looks, one after the other."""
    return [settling.judge(look, since + step * number, FORCE) for number, look in enumerate(looks)]


def same_file(content: bytes | None) -> Look:
    return Look(content, (1, 1))


def other_file(content: bytes) -> Look:
    return Look(content, (1, 2))


def test_file_that_is_as_it_was_is_the_same() -> None:
    assert set(verdicts(Settling(same_file(FORCE)), *[same_file(FORCE)] * 9)) == {Verdict.SAME}


def test_file_that_took_the_place_of_another_has_changed_soon() -> None:
    looks = [other_file(NEW)] * 3

    assert verdicts(Settling(same_file(FORCE)), *looks) == [
        Verdict.SETTLING,
        Verdict.CHANGED,
        Verdict.SAME,
    ]


def test_file_that_was_written_in_place_is_let_settle_longer() -> None:
    assert verdicts(Settling(same_file(FORCE)), *[same_file(NEW)] * 4) == [
        Verdict.SETTLING,
        Verdict.SETTLING,
        Verdict.CHANGED,
        Verdict.SAME,
    ]


@pytest.mark.parametrize("offset", range(len(FORCE)))
def test_what_was_torn_off_at_any_byte_is_never_applied(offset: int) -> None:
    found = verdicts(Settling(same_file(FORCE)), *[same_file(FORCE[:offset])] * 9)

    assert Verdict.CHANGED not in found
    assert found.count(Verdict.TORN) == 1


def test_file_that_is_being_written_is_not_applied_before_its_end() -> None:
    settling = Settling(same_file(FORCE))
    writing = [same_file(NEW[:offset]) for offset in range(len(NEW))]

    assert set(verdicts(settling, *writing)) == {Verdict.SETTLING}
    assert verdicts(settling, *[same_file(NEW)] * 3, since=1e6)[-1] is Verdict.CHANGED


def test_torn_file_that_is_mended_has_changed() -> None:
    settling = Settling(same_file(FORCE))
    verdicts(settling, *[same_file(FORCE[:50])] * 5)

    assert verdicts(settling, *[same_file(NEW)] * 3, since=100)[-1] is Verdict.CHANGED


def test_file_that_has_gone_is_told_once_and_when_it_is_back() -> None:
    settling = Settling(same_file(FORCE))
    gone = verdicts(settling, *[same_file(None)] * 9)
    back = verdicts(settling, *[other_file(FORCE)] * 9, since=100)

    assert gone.count(Verdict.CHANGED) == 1
    assert back.count(Verdict.CHANGED) == 1


def test_secret_that_was_rotated_is_a_change() -> None:
    settling = Settling(Look(FORCE, (1, 1), (b"old",)))

    assert verdicts(settling, *[Look(FORCE, (1, 1), (b"new",))] * 3)[-1] is Verdict.CHANGED


CONTENTS = st.sampled_from([FORCE, NEW, FORCE[:40], NEW[:-3], b"", None])


@given(st.lists(st.tuples(CONTENTS, st.integers(1, 3), st.floats(0.01, 2)), max_size=30))
def test_nothing_is_a_change_that_has_not_stayed(
    looks: list[tuple[bytes | None, int, float]],
) -> None:
    settling = Settling(same_file(FORCE))
    now, since, last = 0.0, 0.0, same_file(FORCE)
    for content, inode, step in looks:
        now += step
        look = Look(content, (1, inode))
        if not look.is_like(last):
            since = now
        last = look
        if settling.judge(look, now, FORCE) is Verdict.CHANGED:
            assert now - since >= 0.25
            assert settling.judge(look, now, FORCE) is Verdict.SAME


def test_look_follows_links_and_survives_whatever_is_there(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    other = tmp_path / "secret"
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "config.toml").write_text(version)
    (tmp_path / "data").symlink_to("1")
    path.symlink_to("data/config.toml")
    first = look_at(path, [other])
    (tmp_path / "new").symlink_to("2")
    (tmp_path / "new").rename(tmp_path / "data")
    second = look_at(path, [other])

    assert (first.content, second.content) == (b"1", b"2")
    assert first.identity != second.identity
    assert first.others == (None,)
    path.unlink()
    assert look_at(path, []).content is None
    path.mkdir()
    assert look_at(path, []).content is None
