"""The memory of a drop sensor."""

import hashlib
import json

from zip_pipeline.defs.drops import DropCursor
from zip_pipeline.ingest.drops import Drops


def _look(cursor: DropCursor, **found: str) -> tuple[list[str], list[str]]:
    return cursor.look(Drops(found=found))


def test_cursor_asks_for_a_drop_after_two_equal_looks() -> None:
    """A drop that grows is changing; once it looks the same twice it is settled."""
    cursor = DropCursor()
    assert _look(cursor, a="1") == ([], ["a"])
    assert _look(cursor, a="2") == ([], ["a"])
    assert _look(cursor, a="2") == (["a"], [])
    assert cursor.request("a", 0) == "a:2:1"
    assert _look(cursor, a="2") == ([], [])


def test_cursor_survives_its_own_dump() -> None:
    """What was dumped is loaded again; nothing stored is an empty memory."""
    cursor = DropCursor()
    _look(cursor, a="1")
    cursor.new_warnings(Drops(unusable={"b...c": "reason"}))
    assert DropCursor.load(cursor.dump()) == cursor
    assert DropCursor.load(None) == DropCursor.load("") == DropCursor()


def test_a_cursor_is_small() -> None:
    """Each tick stores it: seventeen thousand times a day, in which it stays."""
    cursor = DropCursor()
    looks = {f"{n}.jsonl": hashlib.md5(bytes([n])).hexdigest() for n in range(200)}
    for _ in range(2):
        cursor.look(Drops(found=looks))
    for batch in looks:
        cursor.request(batch, 0)
        cursor.accept(batch)
    assert len(cursor.dump()) < 200 * 40


def test_cursor_gives_each_return_to_an_earlier_content_its_own_key() -> None:
    """Content 1, then 2, then 1 again are three requests with three keys."""
    cursor = DropCursor()
    keys = []
    for looks in ("1", "2", "1"):
        _look(cursor, a=looks)
        assert _look(cursor, a=looks) == (["a"], [])
        keys.append(cursor.request("a", 0))
    assert keys == ["a:1:1", "a:2:2", "a:1:3"]


def test_cursor_takes_a_change_back_before_it_was_asked_for_as_no_change() -> None:
    """Content that comes back before the new one was asked for needs no request."""
    cursor = DropCursor()
    _look(cursor, a="1")
    _look(cursor, a="1")
    cursor.request("a", 0)
    assert _look(cursor, a="2") == ([], ["a"])
    assert _look(cursor, a="1") == ([], [])
    assert _look(cursor, a="1") == ([], [])


def test_cursor_starts_over_with_a_drop_that_was_gone() -> None:
    """A vanished drop must look the same twice again; its generation goes on."""
    cursor = DropCursor()
    _look(cursor, a="1")
    _look(cursor, a="1")
    cursor.request("a", 0)
    assert _look(cursor) == ([], [])
    assert _look(cursor, a="2") == ([], ["a"])
    assert _look(cursor) == ([], [])
    assert _look(cursor, a="2") == ([], ["a"])
    assert _look(cursor, a="2") == (["a"], [])
    assert cursor.request("a", 0) == "a:2:2"


def test_cursor_reports_an_unusable_name_once_until_it_is_gone() -> None:
    """A name is reported when it appears, and again when it comes back."""
    cursor = DropCursor()
    bad = Drops(unusable={"b...c": "reason"})
    assert cursor.new_warnings(bad) == {"b...c": "reason"}
    assert cursor.new_warnings(bad) == {}
    assert cursor.new_warnings(Drops()) == {}
    assert cursor.new_warnings(bad) == {"b...c": "reason"}


def _due(cursor: DropCursor, now: float, **found: str) -> list[str]:
    drops = Drops(found=found)
    cursor.look(drops)
    return cursor.due(drops, now)


def test_cursor_looks_what_came_of_a_drop_later_and_later_then_daily() -> None:
    """10 minutes, an hour and six hours after a request it is time to look, then never again."""
    cursor = DropCursor()
    _look(cursor, a="1", b="1")
    for now, wait in ((100.0, 600.0), (1000.0, 3600.0), (10_000.0, 21_600.0)):
        cursor.request("a", now)
        assert _due(cursor, now + wait - 1, a="1", b="1") == []
        assert _due(cursor, now + wait, a="1", b="1") == ["a"]
    for day in range(1, 4):
        cursor.request("a", day * 86_400.0)
        assert _due(cursor, (day + 1) * 86_400.0 - 1, a="1", b="1") == []
        assert _due(cursor, (day + 1) * 86_400.0, a="1", b="1") == ["a"]
    assert DropCursor.load(cursor.dump()) == cursor


def test_cursor_waits_on_for_a_run_and_ends_with_what_is_accepted() -> None:
    """A run at work is looked at again after the same time; what is well, not at all."""
    cursor = DropCursor()
    _look(cursor, a="1")
    cursor.request("a", 0)
    cursor.wait("a", 600)
    assert [_due(cursor, now, a="1") for now in (1199, 1200)] == [[], ["a"]]
    cursor.accept("a")
    assert _due(cursor, 9e9, a="1") == []


def test_cursor_looks_only_at_drops_that_are_there_as_they_were_asked_for() -> None:
    """A changed drop is a new request with all its tries; one that is gone is left alone."""
    cursor = DropCursor()
    _look(cursor, a="1")
    cursor.request("a", 0)
    cursor.request("a", 0)
    assert _due(cursor, 9e9) == []
    assert _due(cursor, 9e9, a="2") == []
    cursor.request("a", 0)
    assert _due(cursor, 600, a="2") == ["a"]


def test_cursor_of_an_earlier_release_is_understood() -> None:
    """What it does not know of is not looked at."""
    seen = {"a": {"looks": "1", "requested": "1", "generation": 2}}
    cursor = DropCursor.load(json.dumps({"seen": seen, "warned": []}))
    assert _due(cursor, 9e9, a="1") == []
    assert cursor.request("a", 0) == "a:1:3"
