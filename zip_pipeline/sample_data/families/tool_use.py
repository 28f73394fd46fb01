"""Conversations in which the assistant looks something up with a tool."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from zip_pipeline.sample_data.task import (
    CITIES,
    EVENTS,
    GOODS,
    NAMES,
    Facts,
    Maker,
    Task,
    money,
    phrase,
    slip,
)
from zip_pipeline.samples import Turn

_DUTIES = (
    "Use {tool} where you need it.",
    "Call {tool} before you promise anything.",
    "You may call {tool}; never guess what it would tell you.",
    "Facts come from {tool}, not from memory.",
)


@dataclass(frozen=True)
class Lookup:
    """A tool, what it is asked and what it returns."""

    tool: str
    arguments: Facts
    returned: Facts


def _looked_up(
    rng: Random,
    kind: str,
    positions: Sequence[str],
    questions: Sequence[str],
    lookup: Lookup,
    answers: Sequence[str],
    facts: Facts,
    wrong: Facts,
) -> Task:
    """Return a task: system, question, tool call and tool result, then the answer."""
    system = f"{rng.choice(positions)} {rng.choice(_DUTIES).format(tool=lookup.tool)}"
    function = {"name": lookup.tool, "arguments": json.dumps(lookup.arguments)}
    call = {"id": f"call_{rng.randrange(16**6):06x}", "type": "function", "function": function}
    answer = rng.choice(answers)
    return Task(
        family="tool_use",
        kind=kind,
        prompt=(
            Turn("system", system),
            Turn("user", phrase(rng, questions, facts)),
            Turn("assistant", "", json.dumps([call])),
            Turn("tool", json.dumps(lookup.returned)),
        ),
        answer=answer.format(**facts),
        wrong=answer.format(**{**facts, **wrong}),
        curt=str(facts["result"]),
        facts=facts,
    )


def stock(rng: Random) -> Task:
    """Make a conversation about goods in stock."""
    goods, left = rng.choice(GOODS), rng.randint(0, 60)
    price, wanted = rng.randrange(50, 900, 5), rng.randint(2, 30)
    yes, no = f"yes, {money(price * wanted)}", f"no, only {left} left"
    facts = {
        "name": rng.choice(NAMES),
        "goods": goods,
        "left": left,
        "wanted": wanted,
        "price": money(price),
        "cost": money(price * wanted),
        "result": yes if left >= wanted else no,
    }
    returned = {"item": goods, "in_stock": left, "price": money(price), "at": rng.choice(CITIES)}
    return _looked_up(
        rng,
        "stock",
        ("You answer customers of a shop.", "You take orders for a small online shop."),
        (
            "Can I have {wanted} {goods}, and what would they cost?",
            "Do you have {wanted} {goods}?",
            "{name} wants to order {wanted} {goods}. Is that possible?",
        ),
        Lookup(rng.choice(("get_stock", "find_item")), {"item": goods}, returned),
        (
            "You asked for {wanted} {goods}: {result}.",
            "We have {left} {goods} at {price} each. For {wanted} the answer is {result}.",
        ),
        facts,
        {"result": no if left >= wanted else yes},
    )


def weather(rng: Random) -> Task:
    """Make a conversation about the weather."""
    city, day = rng.choice(CITIES), rng.choice(("today", "tomorrow", "on Sunday"))
    high, drop, rain = rng.randint(2, 35), rng.randint(3, 15), rng.randrange(0, 100, 5)
    facts = {
        "city": city,
        "day": day,
        "high": high,
        "low": high - drop,
        "rain": rain,
        "advice": "take an umbrella" if rain >= 50 else "you need no umbrella",
        "result": f"{high - drop} to {high} degrees, {rain}% chance of rain",
    }
    returned = {"high": high, "low": high - drop, "rain": rain, "wind": rng.randint(0, 70)}
    return _looked_up(
        rng,
        "weather",
        ("You are a travel assistant.", "You talk to guests of a hotel.", "You plan trips."),
        (
            "What will the weather be like in {city} {day}?",
            "Do I need an umbrella in {city} {day}?",
            "I am in {city} {day}. What should I expect of the weather?",
        ),
        Lookup(rng.choice(("get_forecast", "weather")), {"place": city, "day": day}, returned),
        (
            "The forecast for {city} {day}: {result}; {advice}.",
            "In {city} {day} it is {result}, so {advice}.",
        ),
        facts,
        {"result": f"{high} to {high + drop} degrees, {100 - rain or 15}% chance of rain"},
    )


def calendar(rng: Random) -> Task:
    """Make a conversation about the calendar."""
    event, name = rng.choice(EVENTS), rng.choice(NAMES)
    hour, length = rng.randint(8, 16), rng.randint(1, 4)
    minute = rng.choice(("00", "15", "30", "45"))
    facts = {
        "event": event,
        "name": name,
        "start": f"{hour:02d}:{minute}",
        "hours": length,
        "result": f"{hour + length:02d}:{minute}",
    }
    returned = {"title": event, "start": f"{hour:02d}:{minute}", "hours": length}
    returned["room"] = rng.randint(1, 400)
    return _looked_up(
        rng,
        "calendar",
        ("You manage a calendar.", "You are the assistant of a busy team.", "You keep the diary."),
        (
            "When will the {event} with {name} be over?",
            "{name} wants to know when the {event} ends today.",
            "Until when does the {event} block {name}?",
        ),
        Lookup(rng.choice(("find_event", "calendar")), {"title": event, "who": name}, returned),
        (
            "The {event} with {name} starts at {start} and takes {hours} h: it ends at {result}.",
            "It ends at {result}: {start} plus {hours} h.",
        ),
        facts,
        {"result": f"{slip(rng, hour + length, 3):02d}:{minute}"},
    )


def parcel(rng: Random) -> Task:
    """Make a conversation about a parcel on its way."""
    name, start, now = rng.choice(NAMES), *rng.sample(CITIES, 2)
    number, gone, days = rng.randrange(100000, 999999), rng.randint(1, 6), rng.randint(7, 12)
    facts = {
        "name": name,
        "number": number,
        "start": start,
        "now": now,
        "gone": gone,
        "days": days,
        "result": f"{days - gone} days",
    }
    returned = {"from": start, "last_seen": now, "days_gone": gone, "days_in_all": days}
    return _looked_up(
        rng,
        "parcel",
        ("You work for a parcel service.", "You answer questions about deliveries."),
        (
            "Where is parcel {number}, and how long will it still take?",
            "{name} here. When will my parcel {number} come?",
        ),
        Lookup(rng.choice(("track", "get_parcel")), {"number": number}, returned),
        (
            "Parcel {number} left {start} and was last seen in {now}. Of {days} days {gone} have "
            "passed, so it takes {result} more.",
            "It is in {now} now. {days} - {gone}: {result} to go.",
        ),
        facts,
        {"result": f"{days - gone + rng.randint(1, 4)} days"},
    )


KINDS: tuple[Maker, ...] = (stock, weather, calendar, parcel)
