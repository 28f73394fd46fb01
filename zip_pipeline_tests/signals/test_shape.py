"""Signal shape: what it counts, and what a limit marks."""

import pytest

from zip_pipeline.samples import PreferencePair, Sample, Turn
from zip_pipeline.selection.ledger import FATES
from zip_pipeline.signals import settings_of, signals
from zip_pipeline_tests.signals.measured import TOOLS, measured, table_of, talk

SHAPE = signals["shape"]
_REFUSAL = "I\u2019m sorry, but as an AI language model I am unable to do that."


def test_counts() -> None:
    """Turns, characters, repeated turns, refusals and stock phrases."""
    samples = [
        talk("Hello", "Hi"),
        talk("More", "abc", "More ", "abc", "more", "More"),
        talk("As an AI language model, I'm sorry, but", _REFUSAL),
        Sample(()),
    ]
    assert measured("shape", table_of(samples)).rows() == [
        (2, 7, 0, 0, 0),
        (6, 23, 2, 0, 0),
        (2, 39 + len(_REFUSAL), 0, 2, 1),
        (0, 0, 0, 0, 0),
    ]


def test_both_answers_of_a_pair_count() -> None:
    """A rejected answer like the chosen one repeats no turn."""
    said = (Turn("assistant", "I cannot help with it."),)
    pair = PreferencePair((Turn("user", "Help!"),), said, said)
    table = measured("shape", table_of([pair], "preference"), "preference")
    assert table.rows() == [(3, 5 + 2 * 22, 0, 2, 0)]


@pytest.mark.parametrize(
    ("limits", "marks"),
    [
        ({}, [None, None]),
        ({"max_turns": 4}, [None, None]),
        ({"max_turns": 3}, ["4 turns, more than 3", None]),
        ({"max_repeated_turns": 0}, ["1 repeated turns, more than 0", None]),
        ({"max_turns": 3, "max_refusals": 1}, ["4 turns, more than 3", "2 refusals, more than 1"]),
        ({"max_characters": 60, "max_boilerplate": 0}, [None, "67 characters, more than 60"]),
        ({"max_boilerplate": 0}, [None, "1 boilerplate, more than 0"]),
    ],
)
def test_limits_mark_what_is_above_them(limits: dict[str, int], marks: list[str | None]) -> None:
    """The first of them in the order of the counts is told."""
    table = measured("shape", table_of([talk("a", "b", "a", "c"), talk("Do it", _REFUSAL)]))
    assert SHAPE.marks(table, settings_of("shape", limits)).to_list() == marks


def test_limits_are_not_measured() -> None:
    """Another limit reads what is stored."""
    settings = [settings_of("shape", given) for given in ({}, {"max_turns": 3})]
    assert len({SHAPE.identity(each, TOOLS) for each in settings}) == 1


def test_fates_of_signals_can_be_asked_for() -> None:
    """What a signal marks is found by ``left_out``, which refuses a fate that it does not know."""
    assert {signals[name].fate for name in signals.names()} - {""} <= FATES.keys()
