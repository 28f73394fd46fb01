"""The memory of a drop sensor."""

from zip_pipeline.defs.drop_cursor import DropCursor
from zip_pipeline.defs.drops import Drops


def _look(cursor: DropCursor, **found: str) -> tuple[list[str], list[str]]:
    return cursor.look(Drops(found=found))


def test_cursor_asks_for_a_drop_after_two_equal_looks() -> None:
    """A drop that grows is changing; once it looks the same twice it is settled."""
    cursor = DropCursor()
    assert _look(cursor, a="1") == ([], ["a"])
    assert _look(cursor, a="2") == ([], ["a"])
    assert _look(cursor, a="2") == (["a"], [])
    assert cursor.request("a") == "a:2:1"
    assert _look(cursor, a="2") == ([], [])


def test_cursor_survives_its_own_dump() -> None:
    """What was dumped is loaded again; nothing stored is an empty memory."""
    cursor = DropCursor()
    _look(cursor, a="1")
    cursor.new_warnings(Drops(unusable={"b...c": "reason"}))
    assert DropCursor.load(cursor.dump()) == cursor
    assert DropCursor.load(None) == DropCursor.load("") == DropCursor()


def test_cursor_gives_each_return_to_an_earlier_content_its_own_key() -> None:
    """Content 1, then 2, then 1 again are three requests with three keys."""
    cursor = DropCursor()
    keys = []
    for looks in ("1", "2", "1"):
        _look(cursor, a=looks)
        assert _look(cursor, a=looks) == (["a"], [])
        keys.append(cursor.request("a"))
    assert keys == ["a:1:1", "a:2:2", "a:1:3"]


def test_cursor_takes_a_change_back_before_it_was_asked_for_as_no_change() -> None:
    """Content that comes back before the new one was asked for needs no request."""
    cursor = DropCursor()
    _look(cursor, a="1")
    _look(cursor, a="1")
    cursor.request("a")
    assert _look(cursor, a="2") == ([], ["a"])
    assert _look(cursor, a="1") == ([], [])
    assert _look(cursor, a="1") == ([], [])


def test_cursor_starts_over_with_a_drop_that_was_gone() -> None:
    """A vanished drop must look the same twice again; its generation goes on."""
    cursor = DropCursor()
    _look(cursor, a="1")
    _look(cursor, a="1")
    cursor.request("a")
    assert _look(cursor) == ([], [])
    assert _look(cursor, a="2") == ([], ["a"])
    assert _look(cursor) == ([], [])
    assert _look(cursor, a="2") == ([], ["a"])
    assert _look(cursor, a="2") == (["a"], [])
    assert cursor.request("a") == "a:2:2"


def test_cursor_reports_an_unusable_name_once_until_it_is_gone() -> None:
    """A name is reported when it appears, and again when it comes back."""
    cursor = DropCursor()
    bad = Drops(unusable={"b...c": "reason"})
    assert cursor.new_warnings(bad) == {"b...c": "reason"}
    assert cursor.new_warnings(bad) == {}
    assert cursor.new_warnings(Drops()) == {}
    assert cursor.new_warnings(bad) == {"b...c": "reason"}
