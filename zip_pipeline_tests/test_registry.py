"""Plug-ins by name: shipped, installed and registered."""

from importlib.metadata import EntryPoint

import pytest

from zip_pipeline import registry
from zip_pipeline.errors import UserError
from zip_pipeline.registry import Registry


class Plain:
    """The least that a plug-in is."""

    def __init__(self, name: str) -> None:
        self.name = name


OFFERED = Plain("offered")
MANY = (Plain("one"), Plain("two"))


def plain_codecs() -> Registry[Plain]:
    """Return a registry of its own over the codecs of this package."""
    return Registry("codec", "toys.codecs", "zip_pipeline.compression.codecs", default="zstd")


def test_an_unknown_name_is_told_what_there_is() -> None:
    """The default comes first, the others by name."""
    with pytest.raises(UserError, match=r"^codec: got 'lz4'; allowed are zstd, deflate, xz$"):
        plain_codecs()["lz4"]


def test_a_registered_plugin_is_found_until_it_is_taken_back() -> None:
    """One of the same name takes the place of what the package ships, and gives it back."""
    codecs = plain_codecs()
    shipped, ours = codecs["xz"], Plain("xz")
    assert codecs.register(ours) is ours
    assert codecs["xz"] is ours
    assert [codec.name for codec in codecs] == ["zstd", "deflate", "xz"]
    codecs.unregister("xz")
    assert codecs["xz"] is shipped


def test_entry_points_of_the_group_are_loaded_at_the_first_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another package needs no more than an entry point that names its plug-in."""
    entry = EntryPoint("offered", "zip_pipeline_tests.test_registry:OFFERED", "toys.codecs")
    asked: list[str] = []

    def entry_points(*, group: str) -> list[EntryPoint]:
        asked.append(group)
        return [entry]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    codecs = plain_codecs()
    assert asked == []
    assert codecs.names() == ("zstd", "deflate", "offered", "xz")
    assert codecs["offered"].name == "offered"
    assert asked == ["toys.codecs"]


def test_one_entry_point_may_offer_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tuple of plug-ins stands for each of them."""
    entry = EntryPoint("many", "zip_pipeline_tests.test_registry:MANY", "toys.codecs")
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    assert plain_codecs().names() == ("zstd", "deflate", "one", "two", "xz")
