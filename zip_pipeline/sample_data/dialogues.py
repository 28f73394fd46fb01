"""Conversations: questions that build on the answer before, and things looked up with a tool."""

import json
from datetime import timedelta
from random import Random

from zip_pipeline.sample_data.numbers import draw_date, spoken
from zip_pipeline.sample_data.task import (
    CITIES,
    EVENTS,
    GOODS,
    INGREDIENTS,
    NAMES,
    WEEKDAYS,
    Drawn,
    Facts,
    Family,
    money,
    slip,
)
from zip_pipeline.sample_data.words import draw_sentence
from zip_pipeline.samples import Turn

follow_ups = Family("follow_ups")


@follow_ups.kind(
    "{name} buys {count} {first} at {price} each. What do they cost?|"
    "How much are {count} {first} at {price}?",
    "{count} x {price} = {cost}.|They cost {count} x {price} = {cost}.",
    "And with {more} {second} at {second_price} each?|"
    "Now add {more} {second} for {second_price} apiece.",
    "The {second} cost {more} x {second_price} = {second_cost}. Together: {cost} + {second_cost} "
    "= {sum}.|"
    "{more} x {second_price} = {second_cost}, so the bill is now {sum}.",
    "There is a voucher for {off}. What is left to pay?|Take {off} off, please.",
    "{sum} - {off} = {result}.|With the voucher it is {sum} - {off} = {result} in all.",
)
def _basket(rng: Random) -> Drawn:
    first, second = rng.sample(GOODS, 2)
    count, more = rng.randint(2, 8), rng.randint(2, 6)
    price, second_price = rng.randrange(50, 600, 5), rng.randrange(50, 600, 5)
    bill = count * price + more * second_price
    off = rng.choice((50, 100, 150))
    facts = {
        "name": rng.choice(NAMES),
        "first": first,
        "second": second,
        "count": count,
        "more": more,
        "price": money(price),
        "second_price": money(second_price),
        "cost": money(count * price),
        "second_cost": money(more * second_price),
        "sum": money(bill),
        "off": money(off),
        "result": money(bill - off),
    }
    return Drawn(facts, {"result": money(slip(rng, bill - off, 90))})


@follow_ups.kind(
    "Sort {values}.|Put {values} in ascending order.|Here is a list: {values}. Sort it.",
    "{sorted}|In order: {sorted}",
    "Insert {extra} at the right place.|Now add {extra}, keeping the order.",
    "{grown}|With {extra} it is {grown}",
    "Drop the smallest and reverse the list.|"
    "Without the smallest number, and from largest to smallest?",
    "Without {smallest}, from the largest down: {result}|"
    "The smallest is {smallest}. Reversed, the others are {result}",
)
def _edited_list(rng: Random) -> Drawn:
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
    return Drawn(facts, {"result": grown[::-1]})


@follow_ups.kind(
    "The {event} is on {start}, a {weekday}. It moves by {gap} days. What is the new date?|"
    "Please move the {event} from {weekday}, {start}, to {gap} days later.",
    "The {event} is now on {moved}.|{gap} days after {start} is {moved}.",
    "Which weekday is that?|What day of the week will it be?",
    "{gap} days after a {weekday} comes a {moved_weekday}.|{moved} is a {moved_weekday}.",
    "Remind me {ahead} days before.|When is it {ahead} days before that?",
    "{ahead} days before {moved} is {result}.|I will remind you on {result}.",
)
def _moved_date(rng: Random) -> Drawn:
    start, gap, ahead = draw_date(rng), rng.randint(2, 25), rng.randint(2, 6)
    moved = start + timedelta(days=gap)
    facts = {
        "event": rng.choice(EVENTS),
        "start": spoken(start),
        "weekday": WEEKDAYS[start.weekday()],
        "gap": gap,
        "moved": spoken(moved),
        "moved_weekday": WEEKDAYS[moved.weekday()],
        "ahead": ahead,
        "result": spoken(moved - timedelta(days=ahead)),
    }
    return Drawn(facts, {"result": spoken(moved + timedelta(days=ahead))})


@follow_ups.kind(
    "I need {amount} g of {stuff} for {people} people. How much is that per person?|"
    "{people} portions take {amount} g of {stuff}. And one portion?",
    "{amount} g / {people} = {each} g.|One portion takes {each} g of {stuff}.",
    "And for {times} times as many people?|Now make {times} times the whole amount.",
    "{amount} g x {times} = {grams} g of {stuff}.|That takes {times} x {amount} = {grams} g.",
    "In kilograms?|Please give that in kg.",
    "{grams} g = {result} kg.|{grams} / 1000 = {result}, so {result} kg of {stuff}.",
)
def _scaled_recipe(rng: Random) -> Drawn:
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
    return Drawn(facts, {"result": f"{grams / 100:.2f}"})


@follow_ups.kind(
    'Put this into the past: "The {person} {present} the {object} {place}."|'
    '"The {person} {present} the {object} {place}." How does this read in the past tense?',
    "The {person} {past} the {object} {place}.",
    "Now in the passive.|And as a passive sentence?",
    "{result}|In the passive: {result}",
)
def _reworded(rng: Random) -> Drawn:
    parts = draw_sentence(rng)
    passive = "The {object} was {participle} by the {person} {place}.".format(**parts)
    wrong = "The {object} {past} the {person} {place}.".format(**parts)
    return Drawn({**parts, "result": passive}, {"result": wrong})


tool_use = Family("tool_use")


_DUTIES = (
    "Use {tool} where you need it.",
    "Call {tool} before you promise anything.",
    "You may call {tool}; never guess what it would tell you.",
    "Facts come from {tool}, not from memory.",
)


def _looked_up(
    rng: Random, positions: str, tool: str, asked: Facts, found: Facts, drawn: Drawn
) -> Drawn:
    """Add the system turn before the question, and tool call and tool result after it."""
    system = f"{rng.choice(positions.split('|'))} {rng.choice(_DUTIES).format(tool=tool)}"
    function = {"name": tool, "arguments": json.dumps(asked)}
    call = {"id": f"call_{rng.randrange(16**6):06x}", "type": "function", "function": function}
    called = Turn("assistant", "", json.dumps([call]))
    after = (called, Turn("tool", json.dumps(found)))
    return drawn._replace(before=(Turn("system", system),), after=after)


@tool_use.kind(
    "Can I have {wanted} {goods}, and what would they cost?|"
    "Do you have {wanted} {goods}?|"
    "{name} wants to order {wanted} {goods}. Is that possible?",
    "You asked for {wanted} {goods}: {result}.|"
    "We have {left} {goods} at {price} each. For {wanted} the answer is {result}.",
)
def _stock(rng: Random) -> Drawn:
    goods, left = rng.choice(GOODS), rng.randint(0, 60)
    price, wanted = rng.randrange(50, 900, 5), rng.randint(2, 30)
    right, wrong = f"yes, {money(price * wanted)}", f"no, only {left} left"
    if left < wanted:
        right, wrong = wrong, right
    facts = {
        "name": rng.choice(NAMES),
        "goods": goods,
        "left": left,
        "wanted": wanted,
        "price": money(price),
        "result": right,
    }
    found = {"item": goods, "in_stock": left, "price": money(price), "at": rng.choice(CITIES)}
    positions = "You answer customers of a shop.|You take orders for a small online shop."
    tool = rng.choice(("get_stock", "find_item"))
    drawn = Drawn(facts, {"result": wrong})
    return _looked_up(rng, positions, tool, {"item": goods}, found, drawn)


@tool_use.kind(
    "What will the weather be like in {city} {day}?|"
    "Do I need an umbrella in {city} {day}?|"
    "I am in {city} {day}. What should I expect of the weather?",
    "The forecast for {city} {day}: {result}; {advice}.|"
    "In {city} {day} it is {result}, so {advice}.",
)
def _weather(rng: Random) -> Drawn:
    city, day = rng.choice(CITIES), rng.choice(("today", "tomorrow", "on Sunday"))
    high, drop, rain = rng.randint(2, 35), rng.randint(3, 15), rng.randrange(0, 100, 5)
    found = {"high": high, "low": high - drop, "rain": rain}
    facts = {
        **found,
        "city": city,
        "day": day,
        "advice": "take an umbrella" if rain >= 50 else "you need no umbrella",
        "result": f"{high - drop} to {high} degrees, {rain}% chance of rain",
    }
    found["wind"] = rng.randint(0, 70)
    positions = "You are a travel assistant.|You talk to guests of a hotel.|You plan trips."
    tool = rng.choice(("get_forecast", "weather"))
    wrong = f"{high} to {high + drop} degrees, {100 - rain or 15}% chance of rain"
    drawn = Drawn(facts, {"result": wrong})
    return _looked_up(rng, positions, tool, {"place": city, "day": day}, found, drawn)


@tool_use.kind(
    "When will the {event} with {name} be over?|"
    "{name} wants to know when the {event} ends today.|"
    "Until when does the {event} block {name}?",
    "The {event} with {name} starts at {start} and takes {hours} h: it ends at {result}.|"
    "It ends at {result}: {start} plus {hours} h.",
)
def _calendar(rng: Random) -> Drawn:
    event, name = rng.choice(EVENTS), rng.choice(NAMES)
    hour, length = rng.randint(8, 16), rng.randint(1, 4)
    minute = rng.choice(("00", "15", "30", "45"))
    start, end = f"{hour:02d}:{minute}", f"{hour + length:02d}:{minute}"
    facts = {"event": event, "name": name, "start": start, "hours": length, "result": end}
    found = {"title": event, "start": start, "hours": length, "room": rng.randint(1, 400)}
    positions = "You manage a calendar.|You are the assistant of a busy team.|You keep the diary."
    tool = rng.choice(("find_event", "calendar"))
    drawn = Drawn(facts, {"result": f"{slip(rng, hour + length, 3):02d}:{minute}"})
    return _looked_up(rng, positions, tool, {"title": event, "who": name}, found, drawn)


@tool_use.kind(
    "Where is parcel {number}, and how long will it still take?|"
    "{name} here. When will my parcel {number} come?",
    "Parcel {number} left {start} and was last seen in {now}. Of {days} days {gone} have passed, "
    "so it takes {result} more.|"
    "It is in {now} now. {days} - {gone}: {result} to go.",
)
def _parcel(rng: Random) -> Drawn:
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
    found = {"from": start, "last_seen": now, "days_gone": gone, "days_in_all": days}
    positions = "You work for a parcel service.|You answer questions about deliveries."
    tool = rng.choice(("track", "get_parcel"))
    drawn = Drawn(facts, {"result": f"{days - gone + rng.randint(1, 4)} days"})
    return _looked_up(rng, positions, tool, {"number": number}, found, drawn)
