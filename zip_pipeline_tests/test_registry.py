"""Plug-ins by name: shipped, installed and registered."""

import subprocess
import sys
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
SHIPPED = Plain("xz")


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


def test_no_other_package_takes_the_name_of_what_is_shipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether it is asked for by name or all are listed."""
    entry = EntryPoint("xz", "zip_pipeline_tests.test_registry:SHIPPED", "toys.codecs")
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    assert plain_codecs()["xz"] is not SHIPPED
    assert SHIPPED not in list(plain_codecs())


def test_a_shipped_plugin_is_found_without_loading_the_others() -> None:
    """Else the command that tells a fate would load all strategies."""
    program = (
        "import sys; from zip_pipeline.selection.strategies import strategies\n"
        "assert 'random' in strategies and strategies['random'].name == 'random'\n"
        "print([m for m in sys.modules if m.startswith('zip_pipeline.selection.strategies.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "['zip_pipeline.selection.strategies.random']\n", done.stderr


def test_one_entry_point_may_offer_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tuple of plug-ins stands for each of them."""
    entry = EntryPoint("many", "zip_pipeline_tests.test_registry:MANY", "toys.codecs")
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    assert plain_codecs().names() == ("zstd", "deflate", "one", "two", "xz")
