"""The right answers are right, and the wrong ones are not."""

import calendar
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from fractions import Fraction
from random import Random
from typing import Any

import pytest

from zip_pipeline.sample_data.mixture import FAMILIES
from zip_pipeline.sample_data.structured import run_code
from zip_pipeline.sample_data.task import VERBS, Maker, Task
from zip_pipeline.sample_data.words import COUNTRIES, ELEMENTS

MAKERS = [(name, make) for name, makers in FAMILIES.items() for make in makers]
IDS = [f"{name}-{number}" for number, (name, _) in enumerate(MAKERS)]
Facts = Mapping[str, Any]


def _day(text: str) -> date:
    return datetime.strptime(text, "%d %B %Y").date()


def _minutes(text: str) -> int:
    hours, minutes = text.split(":")
    return 60 * int(hours) + int(minutes)


def _said(value: date) -> str:
    return f"{value.day} {calendar.month_name[value.month]} {value.year}"


def _duration(facts: Facts) -> str:
    gap = (_minutes(facts["end"]) - _minutes(facts["start"])) % (24 * 60)
    return f"{gap // 60} h {gap % 60} min"


def _no_vowels(facts: Facts) -> str:
    return "".join(letter for letter in facts["text"] if letter not in "aeiou")


def _caesar(facts: Facts) -> str:
    return "".join(chr((ord(c) - 97 + facts["shift"]) % 26 + 97) for c in facts["word"])


def _sharing(facts: Facts) -> str:
    each, rest = divmod(facts["total"], facts["people"])
    return f"{each} each, {rest} left over"


def _rotated(facts: Facts) -> list[str]:
    return facts["values"][facts["steps"] :] + facts["values"][: facts["steps"]]


def _above(facts: Facts) -> str:
    return ", ".join(name for name, _, june in facts["rows"] if june > facts["limit"])


def _total(facts: Facts) -> int:
    return sum(row[1 if facts["month"] == "May" else 2] for row in facts["rows"])


def _highest(facts: Facts) -> str:
    return max(facts["rows"], key=lambda row: row[1] + row[2])[0]


def _running(facts: Facts) -> list[int]:
    return [sum(facts["values"][: n + 1]) for n in range(len(facts["values"]))]


def _cents(amount: str) -> int:
    return round(100 * float(amount))


def _amount(cents: int) -> str:
    return f"{cents / 100:.2f}"


def _country(name: str) -> tuple[str, ...]:
    (row,) = (row for row in COUNTRIES if row[0] == name)
    return row


def _portrait(facts: Facts) -> str:
    _, city, continent, currency = _country(facts["name"])
    return f"{city}, {continent}, {currency}; {_country(facts['other'])[3]}"


def _elements(facts: Facts) -> str:
    symbols = dict(ELEMENTS)
    numbers = {name: number for number, (name, _) in enumerate(ELEMENTS, start=1)}
    return ", ".join(f"{symbols[facts[p]]} {numbers[facts[p]]}" for p in ("first", "second"))


def _bill(facts: Facts) -> str:
    first = facts["count"] * _cents(facts["price"])
    return _amount(first + facts["more"] * _cents(facts["second_price"]) - _cents(facts["off"]))


def _stock(facts: Facts) -> str:
    if facts["wanted"] > facts["left"]:
        return f"no, only {facts['left']} left"
    return f"yes, {_amount(facts['wanted'] * _cents(facts['price']))}"


def _end(facts: Facts) -> str:
    minutes = _minutes(facts["start"]) + 60 * facts["hours"]
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _verb(facts: Facts, place: int) -> str:
    (forms,) = (forms for forms in VERBS if forms[0] == facts["base"])
    return forms[place]


def _past(facts: Facts) -> str:
    return facts["text"].replace(f" {_verb(facts, 1)} ", f" {_verb(facts, 2)} ")


def _passive(facts: Facts) -> str:
    where = f"by the {facts['person']} {facts['place']}"
    return f"The {facts['object']} was {_verb(facts, 3)} {where}."


def _question(facts: Facts) -> str:
    statement = facts["text"].replace(f" {_verb(facts, 2)} ", f" {facts['base']} ")
    return f"Did the {statement.removeprefix('The ').removesuffix('.')}?"


def _polite(facts: Facts) -> str:
    order = facts["text"].removeprefix(f"{facts['name']}, ").removesuffix(" now!")
    return f"Dear {facts['name']}, could you please {order}? Thank you."


def _bullets(facts: Facts) -> str:
    things = facts["text"].split(" needs the ")[1].rstrip(".").replace(" and the ", ", the ")
    return "\n".join(f"- {thing}" for thing in things.split(", the "))


# What the answer must be, worked out anew from what the prompt says.
ORACLES: dict[str, Callable[[Facts], object]] = {
    "arithmetic/shopping": lambda f: f"{float(f['note']) - f['count'] * float(f['price']):.2f}",
    "arithmetic/discount": lambda f: (
        f"{float(Fraction(f['price']) * (100 - f['percent']) / 100):.2f}"
    ),
    "arithmetic/journey": lambda f: f["speed"] * f["hours"],
    "arithmetic/product": lambda f: f["left"] * f["right"],
    "arithmetic/average": lambda f: (
        sum(map(int, f["values"].split(", "))) // len(f["values"].split(", "))
    ),
    "arithmetic/sharing": _sharing,
    "dates/weekday": lambda f: calendar.day_name[_day(f["day"]).weekday()],
    "dates/later": lambda f: _said(_day(f["start"]) + timedelta(f["gap"])),
    "dates/between": lambda f: (_day(f["end"]) - _day(f["start"])).days,
    "dates/leap_year": lambda f: "yes" if calendar.isleap(f["year"]) else "no",
    "dates/duration": _duration,
    "units/to_smaller": lambda f: str(Fraction(f["amount"]) * f["factor"]),
    "units/to_larger": lambda f: f["amount"] // f["factor"],
    "units/temperature": lambda f: f["celsius"] * 9 // 5 + 32,
    "units/recipe": lambda f: f["amount"] * f["wanted"] // f["people"],
    "strings/backwards": lambda f: f["word"][::-1],
    "strings/letter_count": lambda f: (f["first"] + f["second"]).count(f["letter"]),
    "strings/alphabetical": lambda f: ", ".join(sorted(f["words"].split(", "))),
    "strings/caesar": _caesar,
    "strings/no_vowels": _no_vowels,
    "strings/acronym": lambda f: "".join(word[0] for word in f["name"].split()),
    "lists/ordered": lambda f: sorted(f["values"], reverse=f["way"] == "from largest to smallest"),
    "lists/runner_up": lambda f: sorted(f["values"])[-2],
    "lists/without_repeats": lambda f: list(dict.fromkeys(f["values"])),
    "lists/common": lambda f: [value for value in f["left"] if value in f["right"]],
    "lists/running_totals": _running,
    "lists/rotated": _rotated,
    "functions/function": lambda f: repr(run_code(f["code"], f["call"])),
    "tables/total": _total,
    "tables/rise": lambda f: abs(f["june"] - f["may"]),
    "tables/highest": _highest,
    "tables/above": _above,
    "follow_ups/edited_list": lambda f: sorted(
        sorted([*f["values"], f["extra"]])[1:], reverse=True
    ),
    "follow_ups/moved_date": lambda f: _said(_day(f["moved"]) - timedelta(f["ahead"])),
    "units/speed": lambda f: f"{round(f['metres'] * 3.6, 1):g}",
    "knowledge/capital": lambda f: f"{_country(f['first'])[1]} and {_country(f['second'])[1]}",
    "knowledge/portrait": _portrait,
    "knowledge/element": _elements,
    "rewriting/past_tense": _past,
    "rewriting/passive": _passive,
    "rewriting/as_question": _question,
    "rewriting/polite": _polite,
    "rewriting/bullets": _bullets,
    "follow_ups/basket": _bill,
    "follow_ups/scaled_recipe": lambda f: f"{f['amount'] * f['times'] / 1000:.2f}",
    "follow_ups/reworded": _passive,
    "tool_use/stock": _stock,
    "tool_use/weather": lambda f: f"{f['low']} to {f['high']} degrees, {f['rain']}% chance of rain",
    "tool_use/calendar": _end,
    "tool_use/parcel": lambda f: f"{f['days'] - f['gone']} days",
}


def _tasks(make: Maker, num_tasks: int = 40) -> list[Task]:
    rng = Random(7)
    return [make(rng) for _ in range(num_tasks)]


@pytest.mark.parametrize(("name", "make"), MAKERS, ids=IDS)
def test_every_answer_holds_its_result_and_the_wrong_one_differs(name: str, make: Maker) -> None:
    """Each task names its family, asks something, answers it, and errs where it should."""
    for task in _tasks(make):
        assert task.family == name
        assert task.prompt_turns()[-1].content.strip()
        assert task.answer.strip()
        assert task.wrong != task.answer
        assert task.curt.strip()
        assert "{" not in task.prompt[0].content or task.family in ("tool_use", "functions")


# The bare result is part of the answer, except where the answer spells it out.
SPELT_OUT = ("knowledge/capital", "knowledge/portrait", "knowledge/element")


@pytest.mark.parametrize(("name", "make"), MAKERS, ids=IDS)
def test_answers_equal_those_worked_out_anew(name: str, make: Maker) -> None:
    """The result is what follows from the prompt, and the answer says it."""
    for task in _tasks(make):
        kind = f"{name}/{task.kind}"
        result = ORACLES[kind](task.facts)
        assert task.facts["result"] == result, (kind, task.facts)
        pieces = str(result).replace(" and ", ", ").replace(";", ",").split(", ")
        for piece in pieces if kind in SPELT_OUT else [str(result)]:
            assert all(word in task.answer for word in piece.split(" ")), (kind, task.answer)
            assert kind in SPELT_OUT or piece in task.answer, (kind, task.answer)


def test_every_kind_is_worked_out_anew() -> None:
    """The list of what is checked follows the families: nothing is missing, nothing stale."""
    kinds = {f"{task.family}/{task.kind}" for _, make in MAKERS for task in _tasks(make, 1)}
    assert len(kinds) >= 45
    assert set(ORACLES) == kinds


def test_what_is_taught_about_the_world_is_true() -> None:
    """A few countries and elements as every atlas and table has them; no name comes twice."""
    assert _country("Kenya") == ("Kenya", "Nairobi", "Africa", "shilling")
    assert _country("Norway") == ("Norway", "Oslo", "Europe", "krone")
    assert _country("Canada") == ("Canada", "Ottawa", "North America", "dollar")
    assert ELEMENTS[25] == ("iron", "Fe")
    assert ELEMENTS[35] == ("krypton", "Kr")
    assert all(len(row) == 4 for row in COUNTRIES)
    assert len({row[0] for row in COUNTRIES}) == len({row[1] for row in COUNTRIES}) == 53
    assert len(dict(ELEMENTS)) == len({symbol for _, symbol in ELEMENTS}) == 36


def test_functions_run_and_their_bugs_show() -> None:
    """The code of an answer gives what it says; that of a wrong answer is another."""
    (make,) = FAMILIES["functions"]
    for task in _tasks(make, 60):
        assert repr(run_code(task.facts["code"], task.facts["second"])) == task.facts["other"]
        assert task.facts["code"] in task.answer
        assert task.facts["code"] not in task.wrong
