"""Questions about dates and clock times."""

from datetime import date, timedelta
from random import Random

from zip_pipeline.sample_data.task import (
    EVENTS,
    MONTHS,
    NAMES,
    WEEKDAYS,
    Maker,
    Task,
    make_task,
    slip,
)


def draw_date(rng: Random) -> date:
    """Return a day between 2015 and 2034."""
    return date(2015, 1, 1) + timedelta(days=rng.randrange(20 * 365))


def spoken(day: date) -> str:
    """Return a date in words, such as 3 March 2024."""
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def weekday(rng: Random) -> Task:
    """Make a task about the weekday of a date, worked out from a known one."""
    known = draw_date(rng)
    gap = rng.randint(8, 60)
    names = [WEEKDAYS[(known.weekday() + shift) % 7] for shift in (0, gap, gap + 1)]
    facts = {
        "known": spoken(known),
        "known_weekday": names[0],
        "day": spoken(known + timedelta(days=gap)),
        "gap": gap,
        "weeks": gap // 7,
        "rest": gap % 7,
        "result": names[1],
    }
    return make_task(
        rng,
        "dates/weekday",
        (
            "{known} is a {known_weekday}. What day of the week is {day}?",
            "If {known} falls on a {known_weekday}, on which weekday does {day} fall?",
        ),
        (
            "From {known} to {day} it is {gap} days, that is {weeks} weeks and {rest} days. "
            "Counting {rest} days on from {known_weekday} gives {result}.",
            "{gap} days lie between them. {gap} = {weeks} x 7 + {rest}, so {day} is a {result}.",
        ),
        facts,
        {"result": names[2]},
    )


def later(rng: Random) -> Task:
    """Make a task about the date some days later."""
    start, gap = draw_date(rng), rng.randint(5, 75)
    end = start + timedelta(days=gap)
    facts = {
        "name": rng.choice(NAMES),
        "event": rng.choice(EVENTS),
        "start": spoken(start),
        "gap": gap,
        "result": spoken(end),
    }
    return make_task(
        rng,
        "dates/later",
        (
            "What is the date {gap} days after {start}?",
            "{name} orders on {start}. The {event} is {gap} days later. When is that?",
            "Count {gap} days on from {start}.",
        ),
        (
            "{gap} days after {start} it is {result}.",
            "Start on {start} and count {gap} days on: you reach {result}.",
        ),
        facts,
        {"result": spoken(end + timedelta(days=rng.choice((-2, -1, 1, 2, 10))))},
    )


def between(rng: Random) -> Task:
    """Make a task about the number of days between two dates."""
    start, gap = draw_date(rng), rng.randint(3, 120)
    end = start + timedelta(days=gap)
    facts = {"start": spoken(start), "end": spoken(end), "event": rng.choice(EVENTS)}
    return make_task(
        rng,
        "dates/between",
        (
            "How many days are there from {start} to {end}?",
            "Today is {start} and the {event} is on {end}. How many days to go?",
        ),
        (
            "From {start} to {end} it is {result} days.",
            "Counting from {start}, you reach {end} after {result} days.",
        ),
        {**facts, "result": gap},
        {"result": slip(rng, gap, 4)},
        curt="{result} days",
    )


def leap_year(rng: Random) -> Task:
    """Make a task about leap years."""
    year = rng.randrange(1600, 2400, 1 if rng.random() < 0.5 else 100)
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if year % 4:
        reason = f"{year} is not divisible by 4"
    elif year % 100:
        reason = f"{year} is divisible by 4 and not by 100"
    else:
        reason = f"{year} is divisible by 100 and {'also' if leap else 'not'} by 400"
    facts = {"year": year, "reason": reason, "result": "yes" if leap else "no"}
    return make_task(
        rng,
        "dates/leap_year",
        ("Was or will {year} be a leap year?", "Is {year} a leap year? Give the reason."),
        ("The answer is {result}: {reason}.", "{reason}, so the answer is {result}."),
        facts,
        {"result": "no" if leap else "yes"},
    )


def duration(rng: Random) -> Task:
    """Make a task about the time between two clock times."""
    start, length = rng.randrange(300, 900, 5), rng.randrange(25, 480, 5)
    facts = {
        "name": rng.choice(NAMES),
        "event": rng.choice(EVENTS),
        "start": _clock(start),
        "end": _clock(start + length),
        "result": f"{length // 60} h {length % 60} min",
    }
    wrong = slip(rng, length // 5, 6) * 5
    return make_task(
        rng,
        "dates/duration",
        (
            "The {event} lasts from {start} to {end}. How long is it?",
            "{name} leaves at {start} and arrives at {end}. How long was the trip?",
        ),
        (
            "From {start} to {end} it is {result}.",
            "Take {start} away from {end}: that leaves {result}.",
        ),
        facts,
        {"result": f"{wrong // 60} h {wrong % 60} min"},
    )


KINDS: tuple[Maker, ...] = (weekday, later, between, leap_year, duration)
