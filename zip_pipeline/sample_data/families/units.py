"""Conversions between units, all exact."""

from decimal import Decimal
from random import Random

from zip_pipeline.sample_data.task import GOODS, INGREDIENTS, NAMES, Maker, Task, make_task, slip

# Larger unit, smaller unit, how many of the smaller make one of the larger.
METRIC = (
    ("kilometre", "metre", 1000),
    ("metre", "centimetre", 100),
    ("kilogram", "gram", 1000),
    ("tonne", "kilogram", 1000),
    ("litre", "millilitre", 1000),
    ("centimetre", "millimetre", 10),
    ("hour", "minute", 60),
    ("minute", "second", 60),
    ("day", "hour", 24),
    ("foot", "inch", 12),
    ("dozen", "piece", 12),
)


def plain(value: Decimal) -> str:
    """Return a decimal number without exponent and trailing zeros."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _plural(unit: str) -> str:
    irregular = {"foot": "feet", "inch": "inches", "dozen": "dozen"}
    return irregular.get(unit, f"{unit}s")


def to_smaller(rng: Random) -> Task:
    """Make a conversion into the smaller unit."""
    large, small, factor = rng.choice(METRIC)
    amount = Decimal(rng.randint(11, 950)) / (10 if factor % 10 == 0 else 1)
    facts = {
        "goods": rng.choice(GOODS),
        "amount": plain(amount),
        "large": _plural(large),
        "one": large,
        "small": _plural(small),
        "factor": factor,
        "result": plain(amount * factor),
    }
    return make_task(
        rng,
        "units/to_smaller",
        (
            "Convert {amount} {large} to {small}.",
            "How many {small} are {amount} {large}?",
            "Express {amount} {large} in {small}, please.",
        ),
        (
            "One {one} is {factor} {small}, so {amount} {large} = {amount} x {factor} = {result} "
            "{small}.",
            "Multiply by {factor}: {amount} x {factor} = {result}. So {amount} {large} are "
            "{result} {small}.",
        ),
        facts,
        {"result": plain(amount * factor * 10)},
        curt="{result} {small}",
    )


def to_larger(rng: Random) -> Task:
    """Make a conversion into the larger unit."""
    large, small, factor = rng.choice(METRIC)
    whole = rng.randint(2, 240)
    facts = {
        "amount": whole * factor,
        "large": _plural(large),
        "one": large,
        "small": _plural(small),
        "factor": factor,
        "result": whole,
    }
    return make_task(
        rng,
        "units/to_larger",
        (
            "Convert {amount} {small} to {large}.",
            "{amount} {small} are how many {large}?",
        ),
        (
            "{factor} {small} make one {one}, so {amount} / {factor} = {result} {large}.",
            "Divide by {factor}: {amount} / {factor} = {result}. The answer is {result} {large}.",
        ),
        facts,
        {"result": slip(rng, whole, 9)},
        curt="{result} {large}",
    )


def temperature(rng: Random) -> Task:
    """Make a conversion between Celsius and Fahrenheit."""
    celsius = rng.randrange(-40, 205, 5)
    fahrenheit = celsius * 9 // 5 + 32
    facts = {
        "celsius": celsius,
        "scaled": celsius * 9 // 5,
        "result": fahrenheit,
    }
    return make_task(
        rng,
        "units/temperature",
        (
            "What is {celsius} degrees Celsius in Fahrenheit?",
            "Convert {celsius} C to F.",
        ),
        (
            "F = C x 9/5 + 32. {celsius} x 9/5 = {scaled}, and {scaled} + 32 = {result}. So it "
            "is {result} degrees Fahrenheit.",
            "Multiply {celsius} by 9/5 to get {scaled}, then add 32: {result} F.",
        ),
        facts,
        {"result": celsius * 9 // 5 - 32},
        curt="{result} F",
    )


def recipe(rng: Random) -> Task:
    """Make a task about a recipe for more or fewer people."""
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
    return make_task(
        rng,
        "units/recipe",
        (
            "A recipe for {people} people needs {amount} g of {stuff}. How much for {wanted}?",
            "{name} uses {amount} g of {stuff} for {people} guests. {wanted} guests are coming. "
            "How many grams are needed?",
        ),
        (
            "One person needs {amount} / {people} = {each} g, so {wanted} need {wanted} x {each} "
            "= {result} g of {stuff}.",
            "Per person: {amount} g / {people} = {each} g. For {wanted}: {each} g x {wanted} = "
            "{result} g.",
        ),
        facts,
        {"result": (wanted + 1) * each},
        curt="{result} g",
    )


def speed(rng: Random) -> Task:
    """Make a conversion of a speed."""
    metres = rng.randint(2, 95)
    kilometres = Decimal(metres) * Decimal("3.6")
    facts = {"metres": metres, "name": rng.choice(NAMES), "result": plain(kilometres)}
    return make_task(
        rng,
        "units/speed",
        (
            "How fast is {metres} m/s in km/h?",
            "{name} reads {metres} metres per second. What is that in kilometres per hour?",
        ),
        (
            "1 m/s is 3.6 km/h, so {metres} m/s = {metres} x 3.6 = {result} km/h.",
            "There are 3600 seconds in an hour and 1000 metres in a kilometre: {metres} x 3600 / "
            "1000 = {result} km/h.",
        ),
        facts,
        {"result": plain(kilometres + 4)},
        curt="{result} km/h",
    )


KINDS: tuple[Maker, ...] = (to_smaller, to_larger, temperature, recipe, speed)
