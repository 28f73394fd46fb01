"""Arithmetic with steps."""

from random import Random

from zip_pipeline.sample_data.task import (
    CITIES,
    GOODS,
    NAMES,
    Maker,
    Task,
    listed,
    make_task,
    money,
    slip,
)


def shopping(rng: Random) -> Task:
    """Make a task about change from a note."""
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
    return make_task(
        rng,
        "arithmetic/shopping",
        (
            "{name} buys {count} {goods} at {price} each and pays with {note}. How much change?",
            "{count} {goods} cost {price} each. What change does {name} get from {note}?",
            "At the shop {name} takes {count} {goods}, {price} apiece, and hands over {note}. "
            "What does {name} get back?",
        ),
        (
            "{count} {goods} at {price} each cost {count} x {price} = {total}. The change from "
            "{note} is {note} - {total} = {result}.",
            "Step 1: the {goods} cost {count} x {price} = {total}.\nStep 2: {note} - {total} = "
            "{result}.\n{name} gets {result} back.",
        ),
        facts,
        {"total": money(wrong_total), "result": money(abs(note - wrong_total))},
    )


def discount(rng: Random) -> Task:
    """Make a task about a price cut in per cent."""
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
    return make_task(
        rng,
        "arithmetic/discount",
        (
            "A box of {goods} costs {price}. In the sale it is {percent}% cheaper. What is the "
            "sale price?",
            "What do you pay for a set of {goods} marked {price} after a {percent}% discount?",
            "The price of a crate of {goods} falls by {percent}% from {price}. Find the new price.",
        ),
        (
            "{percent}% of {price} is {cut}. The new price is {price} - {cut} = {result}.",
            "First find the discount: {price} x {percent} / 100 = {cut}.\nThen take it off: "
            "{price} - {cut} = {result}.",
        ),
        facts,
        {"cut": money(wrong_cut), "result": money(abs(price - wrong_cut))},
    )


def journey(rng: Random) -> Task:
    """Make a task about distance, speed and time."""
    speed, hours = rng.randrange(20, 130, 5), rng.randint(2, 9)
    start, end = rng.sample(CITIES, 2)
    facts = {
        "start": start,
        "end": end,
        "speed": speed,
        "hours": hours,
        "distance": speed * hours,
        "result": speed * hours,
    }
    return make_task(
        rng,
        "arithmetic/journey",
        (
            "A train runs from {start} to {end} at {speed} km per hour and takes {hours} hours. "
            "How far apart are the towns?",
            "How many kilometres is it from {start} to {end} if a bus at {speed} km/h needs "
            "{hours} hours?",
        ),
        (
            "Distance = speed x time = {speed} x {hours} = {result} km.",
            "In one hour it covers {speed} km, so in {hours} hours it covers {hours} x {speed} = "
            "{result} km. {start} and {end} are {result} km apart.",
        ),
        facts,
        {"result": slip(rng, speed * hours, 40)},
        curt="{result} km",
    )


def product(rng: Random) -> Task:
    """Make a multiplication split into tens and units."""
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
    return make_task(
        rng,
        "arithmetic/product",
        (
            "Work out {left} x {right} and show your steps.",
            "What is {left} times {right}? Split the second number into tens and units.",
            "Multiply {left} by {right} step by step.",
        ),
        (
            "{left} x {tens} = {high} and {left} x {ones} = {low}. Together {high} + {low} = "
            "{result}.",
            "Split {right} into {tens} + {ones}.\n{left} x {tens} = {high}\n{left} x {ones} = "
            "{low}\n{high} + {low} = {result}",
        ),
        facts,
        {"high": wrong_part, "result": wrong_part + left * ones},
    )


def average(rng: Random) -> Task:
    """Make a task about the mean of a few numbers."""
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
    return make_task(
        rng,
        "arithmetic/average",
        (
            "{name} scored {values} in {count} games. What is the mean score?",
            "Find the average of {values}.",
            "{name} measured {values} minutes on {count} days. What was the average?",
        ),
        (
            "The sum is {added} = {total}. There are {count} numbers, so the mean is {total} / "
            "{count} = {result}.",
            "Add them up: {added} = {total}. Divide by {count}: {result}.",
        ),
        facts,
        {"result": slip(rng, mean, 5)},
    )


def sharing(rng: Random) -> Task:
    """Make a division with a remainder."""
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
    return make_task(
        rng,
        "arithmetic/sharing",
        (
            "{name} shares {total} {goods} equally among {people} friends. How many does each "
            "get and how many are left?",
            "Divide {total} {goods} fairly between {people} people. What is left over?",
        ),
        (
            "{people} x {each} = {shared} and {total} - {shared} = {rest}. So it is {result}.",
            "{total} divided by {people} is {each} with remainder {rest}, because {people} x "
            "{each} = {shared}. That makes {result}.",
        ),
        facts,
        {"each": each_wrong, "result": f"{each_wrong} each, {rest} left over"},
    )


KINDS: tuple[Maker, ...] = (shopping, discount, journey, product, average, sharing)
