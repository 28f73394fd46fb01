"""Sums, conversions between units and dates."""

from datetime import date, timedelta
from decimal import Decimal
from random import Random

from zip_pipeline.sample_data.task import (
    CITIES,
    EVENTS,
    GOODS,
    INGREDIENTS,
    MONTHS,
    NAMES,
    WEEKDAYS,
    Drawn,
    Family,
    listed,
    money,
    slip,
)

arithmetic = Family("arithmetic")


@arithmetic.kind(
    "{name} buys {count} {goods} at {price} each and pays with {note}. How much change?|"
    "{count} {goods} cost {price} each. What change does {name} get from {note}?|"
    "At the shop {name} takes {count} {goods}, {price} apiece, and hands over {note}. What does "
    "{name} get back?",
    "{count} {goods} at {price} each cost {count} x {price} = {total}. The change from {note} is "
    "{note} - {total} = {result}.|"
    "Step 1: the {goods} cost {count} x {price} = {total}.\nStep 2: {note} - {total} = "
    "{result}.\n{name} gets {result} back.",
)
def _shopping(rng: Random) -> Drawn:
    count, price = rng.randint(2, 9), rng.randrange(35, 700, 5)
    total = count * price
    note = min(n for n in (1000, 2000, 5000, 10000) if n > total)
    wrong_total = slip(rng, total, 90)
    facts = {
        "name": rng.choice(NAMES),
        "count": count,
        "goods": rng.choice(GOODS),
        "price": money(price),
        "note": money(note),
        "total": money(total),
        "result": money(note - total),
    }
    return Drawn(facts, {"total": money(wrong_total), "result": money(abs(note - wrong_total))})


@arithmetic.kind(
    "A box of {goods} costs {price}. In the sale it is {percent}% cheaper. What is the sale "
    "price?|"
    "What do you pay for a set of {goods} marked {price} after a {percent}% discount?|"
    "The price of a crate of {goods} falls by {percent}% from {price}. Find the new price.",
    "{percent}% of {price} is {cut}. The new price is {price} - {cut} = {result}.|"
    "First find the discount: {price} x {percent} / 100 = {cut}.\nThen take it off: {price} - "
    "{cut} = {result}.",
)
def _discount(rng: Random) -> Drawn:
    price, percent = rng.randrange(1000, 30000, 100), rng.choice((5, 10, 15, 20, 25, 30, 40))
    cut = price * percent // 100
    wrong_cut = cut + rng.randint(1, 9) * 50
    facts = {
        "goods": rng.choice(GOODS),
        "price": money(price),
        "percent": percent,
        "cut": money(cut),
        "result": money(price - cut),
    }
    return Drawn(facts, {"cut": money(wrong_cut), "result": money(abs(price - wrong_cut))})


@arithmetic.kind(
    "A train runs from {start} to {end} at {speed} km per hour and takes {hours} hours. How far "
    "apart are the towns?|"
    "How many kilometres is it from {start} to {end} if a bus at {speed} km/h needs {hours} hours?",
    "Distance = speed x time = {speed} x {hours} = {result} km.|"
    "In one hour it covers {speed} km, so in {hours} hours it covers {hours} x {speed} = {result} "
    "km. {start} and {end} are {result} km apart.",
    curt="{result} km",
)
def _journey(rng: Random) -> Drawn:
    speed, hours = rng.randrange(20, 130, 5), rng.randint(2, 9)
    start, end = rng.sample(CITIES, 2)
    facts = {
        "start": start,
        "end": end,
        "speed": speed,
        "hours": hours,
        "result": speed * hours,
    }
    return Drawn(facts, {"result": slip(rng, speed * hours, 40)})


@arithmetic.kind(
    "Work out {left} x {right} and show your steps.|"
    "What is {left} times {right}? Split the second number into tens and units.|"
    "Multiply {left} by {right} step by step.",
    "{left} x {tens} = {high} and {left} x {ones} = {low}. Together {high} + {low} = {result}.|"
    "Split {right} into {tens} + {ones}.\n{left} x {tens} = {high}\n{left} x {ones} = "
    "{low}\n{high} + {low} = {result}",
)
def _product(rng: Random) -> Drawn:
    left, right = rng.randint(12, 99), rng.randint(12, 99)
    tens, ones = right // 10 * 10, right % 10
    wrong_part = slip(rng, left * tens, 50)
    facts = {
        "left": left,
        "right": right,
        "tens": tens,
        "ones": ones,
        "high": left * tens,
        "low": left * ones,
        "result": left * right,
    }
    return Drawn(facts, {"high": wrong_part, "result": wrong_part + left * ones})


@arithmetic.kind(
    "{name} scored {values} in {count} games. What is the mean score?|"
    "Find the average of {values}.|"
    "{name} measured {values} minutes on {count} days. What was the average?",
    "The sum is {added} = {total}. There are {count} numbers, so the mean is {total} / {count} = "
    "{result}.|"
    "Add them up: {added} = {total}. Divide by {count}: {result}.",
)
def _average(rng: Random) -> Drawn:
    values = [rng.randint(2, 60) for _ in range(rng.randint(3, 5))]
    values[-1] += -sum(values) % len(values)
    mean = sum(values) // len(values)
    facts = {
        "name": rng.choice(NAMES),
        "values": listed(values),
        "added": " + ".join(map(str, values)),
        "total": sum(values),
        "count": len(values),
        "result": mean,
    }
    return Drawn(facts, {"result": slip(rng, mean, 5)})


@arithmetic.kind(
    "{name} shares {total} {goods} equally among {people} friends. How many does each get and how "
    "many are left?|"
    "Divide {total} {goods} fairly between {people} people. What is left over?",
    "{people} x {each} = {shared} and {total} - {shared} = {rest}. So it is {result}.|"
    "{total} divided by {people} is {each} with remainder {rest}, because {people} x {each} = "
    "{shared}. That makes {result}.",
)
def _sharing(rng: Random) -> Drawn:
    people, each = rng.randint(3, 12), rng.randint(2, 30)
    rest = rng.randrange(people)
    facts = {
        "name": rng.choice(NAMES),
        "goods": rng.choice(GOODS),
        "total": people * each + rest,
        "people": people,
        "shared": people * each,
        "each": each,
        "rest": rest,
        "result": f"{each} each, {rest} left over",
    }
    each_wrong = slip(rng, each, 3)
    return Drawn(facts, {"each": each_wrong, "result": f"{each_wrong} each, {rest} left over"})


units = Family("units")


# Larger unit, smaller unit, how many of the smaller make one of the larger.
_RATIOS = (
    "kilometre metre 1000|metre centimetre 100|kilogram gram 1000|tonne kilogram 1000|"
    "litre millilitre 1000|centimetre millimetre 10|hour minute 60|minute second 60|day hour 24|"
    "foot inch 12|dozen piece 12"
)
_UNITS = [
    (large, small, int(factor)) for large, small, factor in map(str.split, _RATIOS.split("|"))
]


def _plain(value: Decimal) -> str:
    """Return a number without exponent and trailing zeros."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _plural(unit: str) -> str:
    irregular = {"foot": "feet", "inch": "inches", "dozen": "dozen"}
    return irregular.get(unit, f"{unit}s")


@units.kind(
    "Convert {amount} {large} to {small}.|"
    "How many {small} are {amount} {large}?|"
    "Express {amount} {large} in {small}, please.",
    "One {one} is {factor} {small}, so {amount} {large} = {amount} x {factor} = {result} {small}.|"
    "Multiply by {factor}: {amount} x {factor} = {result}. So {amount} {large} are {result} "
    "{small}.",
    curt="{result} {small}",
)
def _to_smaller(rng: Random) -> Drawn:
    large, small, factor = rng.choice(_UNITS)
    amount = Decimal(rng.randint(11, 950)) / (10 if factor % 10 == 0 else 1)
    facts = {
        "goods": rng.choice(GOODS),
        "amount": _plain(amount),
        "large": _plural(large),
        "one": large,
        "small": _plural(small),
        "factor": factor,
        "result": _plain(amount * factor),
    }
    return Drawn(facts, {"result": _plain(amount * factor * 10)})


@units.kind(
    "Convert {amount} {small} to {large}.|{amount} {small} are how many {large}?",
    "{factor} {small} make one {one}, so {amount} / {factor} = {result} {large}.|"
    "Divide by {factor}: {amount} / {factor} = {result}. The answer is {result} {large}.",
    curt="{result} {large}",
)
def _to_larger(rng: Random) -> Drawn:
    large, small, factor = rng.choice(_UNITS)
    whole = rng.randint(2, 240)
    facts = {
        "amount": whole * factor,
        "large": _plural(large),
        "one": large,
        "small": _plural(small),
        "factor": factor,
        "result": whole,
    }
    return Drawn(facts, {"result": slip(rng, whole, 9)})


@units.kind(
    "What is {celsius} degrees Celsius in Fahrenheit?|Convert {celsius} C to F.",
    "F = C x 9/5 + 32. {celsius} x 9/5 = {scaled}, and {scaled} + 32 = {result}. So it is "
    "{result} degrees Fahrenheit.|"
    "Multiply {celsius} by 9/5 to get {scaled}, then add 32: {result} F.",
    curt="{result} F",
)
def _temperature(rng: Random) -> Drawn:
    celsius = rng.randrange(-40, 205, 5)
    scaled = celsius * 9 // 5
    facts = {"celsius": celsius, "scaled": scaled, "result": scaled + 32}
    return Drawn(facts, {"result": scaled - 32})


@units.kind(
    "A recipe for {people} people needs {amount} g of {stuff}. How much for {wanted}?|"
    "{name} uses {amount} g of {stuff} for {people} guests. {wanted} guests are coming. How many "
    "grams are needed?",
    "One person needs {amount} / {people} = {each} g, so {wanted} need {wanted} x {each} = "
    "{result} g of {stuff}.|"
    "Per person: {amount} g / {people} = {each} g. For {wanted}: {each} g x {wanted} = {result} g.",
    curt="{result} g",
)
def _recipe(rng: Random) -> Drawn:
    people, wanted = rng.sample((2, 3, 4, 5, 6, 8, 10, 12), 2)
    each = rng.randrange(20, 160, 5)
    facts = {
        "name": rng.choice(NAMES),
        "stuff": rng.choice(INGREDIENTS),
        "people": people,
        "wanted": wanted,
        "amount": people * each,
        "each": each,
        "result": wanted * each,
    }
    return Drawn(facts, {"result": (wanted + 1) * each})


@units.kind(
    "How fast is {metres} m/s in km/h?|"
    "{name} reads {metres} metres per second. What is that in kilometres per hour?",
    "1 m/s is 3.6 km/h, so {metres} m/s = {metres} x 3.6 = {result} km/h.|"
    "There are 3600 seconds in an hour and 1000 metres in a kilometre: {metres} x 3600 / 1000 = "
    "{result} km/h.",
    curt="{result} km/h",
)
def _speed(rng: Random) -> Drawn:
    metres = rng.randint(2, 95)
    kilometres = Decimal(metres) * Decimal("3.6")
    facts = {"metres": metres, "name": rng.choice(NAMES), "result": _plain(kilometres)}
    return Drawn(facts, {"result": _plain(kilometres + 4)})


dates = Family("dates")


def draw_date(rng: Random) -> date:
    """Return a day between 2015 and 2034."""
    return date(2015, 1, 1) + timedelta(days=rng.randrange(20 * 365))


def spoken(day: date) -> str:
    """Return a date in words, such as 3 March 2024."""
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


@dates.kind(
    "{known} is a {known_weekday}. What day of the week is {day}?|"
    "If {known} falls on a {known_weekday}, on which weekday does {day} fall?",
    "From {known} to {day} it is {gap} days, that is {weeks} weeks and {rest} days. Counting "
    "{rest} days on from {known_weekday} gives {result}.|"
    "{gap} days lie between them. {gap} = {weeks} x 7 + {rest}, so {day} is a {result}.",
)
def _weekday(rng: Random) -> Drawn:
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
    return Drawn(facts, {"result": names[2]})


@dates.kind(
    "What is the date {gap} days after {start}?|"
    "{name} orders on {start}. The {event} is {gap} days later. When is that?|"
    "Count {gap} days on from {start}.",
    "{gap} days after {start} it is {result}.|"
    "Start on {start} and count {gap} days on: you reach {result}.",
)
def _later(rng: Random) -> Drawn:
    start, gap = draw_date(rng), rng.randint(5, 75)
    end = start + timedelta(days=gap)
    facts = {
        "name": rng.choice(NAMES),
        "event": rng.choice(EVENTS),
        "start": spoken(start),
        "gap": gap,
        "result": spoken(end),
    }
    return Drawn(facts, {"result": spoken(end + timedelta(days=rng.choice((-2, -1, 1, 2, 10))))})


@dates.kind(
    "How many days are there from {start} to {end}?|"
    "Today is {start} and the {event} is on {end}. How many days to go?",
    "From {start} to {end} it is {result} days.|"
    "Counting from {start}, you reach {end} after {result} days.",
    curt="{result} days",
)
def _between(rng: Random) -> Drawn:
    start, gap = draw_date(rng), rng.randint(3, 120)
    end = start + timedelta(days=gap)
    facts = {"start": spoken(start), "end": spoken(end), "event": rng.choice(EVENTS)}
    return Drawn({**facts, "result": gap}, {"result": slip(rng, gap, 4)})


@dates.kind(
    "Was or will {year} be a leap year?|Is {year} a leap year? Give the reason.",
    "The answer is {result}: {reason}.|{reason}, so the answer is {result}.",
)
def _leap_year(rng: Random) -> Drawn:
    year = rng.randrange(1600, 2400, 1 if rng.random() < 0.5 else 100)
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if year % 4:
        reason = f"{year} is not divisible by 4"
    elif year % 100:
        reason = f"{year} is divisible by 4 and not by 100"
    else:
        reason = f"{year} is divisible by 100 and {'also' if leap else 'not'} by 400"
    facts = {"year": year, "reason": reason, "result": "yes" if leap else "no"}
    return Drawn(facts, {"result": "no" if leap else "yes"})


@dates.kind(
    "The {event} lasts from {start} to {end}. How long is it?|"
    "{name} leaves at {start} and arrives at {end}. How long was the trip?",
    "From {start} to {end} it is {result}.|Take {start} away from {end}: that leaves {result}.",
)
def _duration(rng: Random) -> Drawn:
    start, length = rng.randrange(300, 900, 5), rng.randrange(25, 480, 5)
    facts = {
        "name": rng.choice(NAMES),
        "event": rng.choice(EVENTS),
        "start": _clock(start),
        "end": _clock(start + length),
        "result": f"{length // 60} h {length % 60} min",
    }
    wrong = slip(rng, length // 5, 6) * 5
    return Drawn(facts, {"result": f"{wrong // 60} h {wrong % 60} min"})
