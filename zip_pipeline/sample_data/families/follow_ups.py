"""Conversations in which each question builds on the answer before."""

from collections.abc import Sequence
from datetime import timedelta
from random import Random

from zip_pipeline.sample_data.families.dates import draw_date, spoken
from zip_pipeline.sample_data.families.rewriting import draw_sentence
from zip_pipeline.sample_data.task import (
    EVENTS,
    GOODS,
    INGREDIENTS,
    NAMES,
    WEEKDAYS,
    Facts,
    Maker,
    Task,
    money,
    phrase,
    slip,
)
from zip_pipeline.samples import Turn

# Wordings of each turn, user and assistant alternating.
Script = Sequence[Sequence[str]]


def _conversation(rng: Random, kind: str, script: Script, facts: Facts, wrong: Facts) -> Task:
    """Return a task whose turns are the script's, the last one being the answer."""
    roles = ("user", "assistant")
    *earlier, answers = script
    answer = rng.choice(answers)
    return Task(
        family="follow_ups",
        kind=kind,
        prompt=tuple(
            Turn(roles[place % 2], phrase(rng, wordings, facts))
            for place, wordings in enumerate(earlier)
        ),
        answer=answer.format(**facts),
        wrong=answer.format(**{**facts, **wrong}),
        curt=str(facts["result"]),
        facts=facts,
    )


def basket(rng: Random) -> Task:
    """Make a conversation about a growing bill."""
    first, second = rng.sample(GOODS, 2)
    counts = rng.randint(2, 8), rng.randint(2, 6)
    prices = rng.randrange(50, 600, 5), rng.randrange(50, 600, 5)
    costs = [count * price for count, price in zip(counts, prices, strict=True)]
    off = rng.choice((50, 100, 150))
    facts = {
        "name": rng.choice(NAMES),
        "first": first,
        "second": second,
        "count": counts[0],
        "more": counts[1],
        "price": money(prices[0]),
        "second_price": money(prices[1]),
        "cost": money(costs[0]),
        "second_cost": money(costs[1]),
        "sum": money(sum(costs)),
        "off": money(off),
        "result": money(sum(costs) - off),
    }
    script = (
        (
            "{name} buys {count} {first} at {price} each. What do they cost?",
            "How much are {count} {first} at {price}?",
        ),
        ("{count} x {price} = {cost}.", "They cost {count} x {price} = {cost}."),
        (
            "And with {more} {second} at {second_price} each?",
            "Now add {more} {second} for {second_price} apiece.",
        ),
        (
            "The {second} cost {more} x {second_price} = {second_cost}. Together: {cost} + "
            "{second_cost} = {sum}.",
            "{more} x {second_price} = {second_cost}, so the bill is now {sum}.",
        ),
        ("There is a voucher for {off}. What is left to pay?", "Take {off} off, please."),
        (
            "{sum} - {off} = {result}.",
            "With the voucher it is {sum} - {off} = {result} in all.",
        ),
    )
    wrong = {"result": money(slip(rng, sum(costs) - off, 90))}
    return _conversation(rng, "basket", script, facts, wrong)


def edited_list(rng: Random) -> Task:
    """Make a conversation that changes a list step by step."""
    values = rng.sample(range(1, 100), rng.randint(4, 7))
    extra = rng.choice([value for value in range(1, 100) if value not in values])
    grown = sorted([*values, extra])
    facts = {
        "values": values,
        "sorted": sorted(values),
        "extra": extra,
        "grown": grown,
        "smallest": grown[0],
        "result": grown[:0:-1],
    }
    script = (
        (
            "Sort {values}.",
            "Put {values} in ascending order.",
            "Here is a list: {values}. Sort it.",
        ),
        ("{sorted}", "In order: {sorted}"),
        ("Insert {extra} at the right place.", "Now add {extra}, keeping the order."),
        ("{grown}", "With {extra} it is {grown}"),
        (
            "Drop the smallest and reverse the list.",
            "Without the smallest number, and from largest to smallest?",
        ),
        (
            "Without {smallest}, from the largest down: {result}",
            "The smallest is {smallest}. Reversed, the others are {result}",
        ),
    )
    return _conversation(rng, "edited_list", script, facts, {"result": grown[::-1]})


def moved_date(rng: Random) -> Task:
    """Make a conversation about an appointment that is moved."""
    start, gap, ahead = draw_date(rng), rng.randint(2, 25), rng.randint(2, 6)
    moved = start + timedelta(days=gap)
    reminder = moved - timedelta(days=ahead)
    facts = {
        "event": rng.choice(EVENTS),
        "start": spoken(start),
        "weekday": WEEKDAYS[start.weekday()],
        "gap": gap,
        "moved": spoken(moved),
        "moved_weekday": WEEKDAYS[moved.weekday()],
        "ahead": ahead,
        "result": spoken(reminder),
    }
    script = (
        (
            "The {event} is on {start}, a {weekday}. It moves by {gap} days. What is the new date?",
            "Please move the {event} from {weekday}, {start}, to {gap} days later.",
        ),
        ("The {event} is now on {moved}.", "{gap} days after {start} is {moved}."),
        ("Which weekday is that?", "What day of the week will it be?"),
        (
            "{gap} days after a {weekday} comes a {moved_weekday}.",
            "{moved} is a {moved_weekday}.",
        ),
        ("Remind me {ahead} days before.", "When is it {ahead} days before that?"),
        ("{ahead} days before {moved} is {result}.", "I will remind you on {result}."),
    )
    wrong = {"result": spoken(moved + timedelta(days=ahead))}
    return _conversation(rng, "moved_date", script, facts, wrong)


def scaled_recipe(rng: Random) -> Task:
    """Make a conversation about a recipe that grows."""
    people, each, times = rng.randint(2, 6), rng.randrange(40, 200, 10), rng.randint(3, 9)
    amount, grams = people * each, people * each * times
    facts = {
        "stuff": rng.choice(INGREDIENTS),
        "people": people,
        "amount": amount,
        "each": each,
        "times": times,
        "grams": grams,
        "result": f"{grams / 1000:.2f}",
    }
    script = (
        (
            "I need {amount} g of {stuff} for {people} people. How much is that per person?",
            "{people} portions take {amount} g of {stuff}. And one portion?",
        ),
        ("{amount} g / {people} = {each} g.", "One portion takes {each} g of {stuff}."),
        ("And for {times} times as many people?", "Now make {times} times the whole amount."),
        (
            "{amount} g x {times} = {grams} g of {stuff}.",
            "That takes {times} x {amount} = {grams} g.",
        ),
        ("In kilograms?", "Please give that in kg."),
        ("{grams} g = {result} kg.", "{grams} / 1000 = {result}, so {result} kg of {stuff}."),
    )
    return _conversation(rng, "scaled_recipe", script, facts, {"result": f"{grams / 100:.2f}"})


def reworded(rng: Random) -> Task:
    """Make a conversation that rewrites one sentence twice."""
    parts = draw_sentence(rng)
    facts = {
        **parts,
        "result": "The {object} was {participle} by the {person} {place}.".format(**parts),
    }
    script = (
        (
            'Put this into the past: "The {person} {present} the {object} {place}."',
            '"The {person} {present} the {object} {place}." How does this read in the past tense?',
        ),
        ("The {person} {past} the {object} {place}.",),
        ("Now in the passive.", "And as a passive sentence?"),
        ("{result}", "In the passive: {result}"),
    )
    wrong = {"result": "The {object} {past} the {person} {place}.".format(**parts)}
    return _conversation(rng, "reworded", script, facts, wrong)


KINDS: tuple[Maker, ...] = (basket, edited_list, moved_date, scaled_recipe, reworded)
