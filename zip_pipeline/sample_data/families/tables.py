"""Questions about a small table."""

from random import Random

from zip_pipeline.sample_data.task import CITIES, GOODS, NAMES, Maker, Task, listed, make_task, slip

_SUBJECTS = (
    ("town", "visitors", CITIES),
    ("product", "sold", GOODS),
    ("player", "points", NAMES),
    ("employee", "hours", NAMES),
)
Rows = list[tuple[str, int, int]]


def _table(rng: Random) -> tuple[str, str, Rows, str]:
    """Return the two column words, the rows and the table as text."""
    label, measure, words = rng.choice(_SUBJECTS)
    rows = [
        (word, rng.randint(3, 99), rng.randint(3, 99))
        for word in rng.sample(words, rng.randint(3, 6))
    ]
    header = (label, f"{measure} in May", f"{measure} in June")
    if rng.random() < 0.5:
        lines = [f"| {' | '.join(header)} |", "| --- | --- | --- |"]
        lines += [f"| {name} | {may} | {june} |" for name, may, june in rows]
    else:
        lines = [",".join(header), *(f"{name},{may},{june}" for name, may, june in rows)]
    return label, measure, rows, "\n".join(lines)


def total(rng: Random) -> Task:
    """Make a task about the sum of a column."""
    label, measure, rows, table = _table(rng)
    month = rng.choice(("May", "June"))
    values = [may if month == "May" else june for _, may, june in rows]
    facts = {
        "label": label,
        "measure": measure,
        "month": month,
        "rows": rows,
        "added": " + ".join(map(str, values)),
        "result": sum(values),
    }
    return make_task(
        rng,
        "tables/total",
        (
            "What is the total of {measure} in {month} over all rows of the table?",
            "Add up the column {measure} in {month}.",
        ),
        (
            "{added} = {result}. The total of {measure} in {month} is {result}.",
            "The column for {month} sums to {added} = {result}.",
        ),
        facts,
        {"result": slip(rng, sum(values), 20)},
        context=table,
    )


def rise(rng: Random) -> Task:
    """Make a task about the change of one row."""
    label, measure, rows, table = _table(rng)
    name, may, june = rng.choice(rows)
    facts = {
        "label": label,
        "measure": measure,
        "name": name,
        "may": may,
        "june": june,
        "way": "rose" if june >= may else "fell",
        "higher": max(may, june),
        "lower": min(may, june),
        "result": abs(june - may),
    }
    return make_task(
        rng,
        "tables/rise",
        (
            "By how much did the {measure} of {name} change from May to June?",
            "Compare May and June for the {label} {name}.",
        ),
        (
            "{name} had {may} in May and {june} in June, so the value {way} by {higher} - "
            "{lower} = {result}.",
            "May: {may}, June: {june}. For {name} the value {way} by {result}.",
        ),
        facts,
        {"result": slip(rng, abs(june - may), 9)},
        context=table,
    )


def highest(rng: Random) -> Task:
    """Make a task about the row with the largest sum."""
    label, measure, rows, table = _table(rng)
    sums = sorted(((may + june, name) for name, may, june in rows), reverse=True)
    while sums[0][0] == sums[1][0]:
        label, measure, rows, table = _table(rng)
        sums = sorted(((may + june, name) for name, may, june in rows), reverse=True)
    facts = {
        "label": label,
        "measure": measure,
        "rows": rows,
        "sums": listed([f"{name} {value}" for value, name in sums]),
        "most": sums[0][0],
        "result": sums[0][1],
    }
    return make_task(
        rng,
        "tables/highest",
        (
            "Which {label} has the most {measure} in the two months together?",
            "Add May and June for each {label}. Who or what comes first?",
        ),
        (
            "The sums are {sums}. The highest is {most}: {result}.",
            "May plus June gives {sums}, so {result} comes first with {most}.",
        ),
        facts,
        {"result": sums[1][1]},
        context=table,
    )


def above(rng: Random) -> Task:
    """Make a task about the rows above a limit."""
    label, measure, rows, table = _table(rng)
    limit = rng.choice(rows)[2] - 1
    names = [name for name, _, june in rows if june > limit]
    facts = {
        "label": label,
        "measure": measure,
        "rows": rows,
        "limit": limit,
        "count": len(names),
        "result": listed(names),
    }
    others = [name for name, _, june in rows if june <= limit]
    return make_task(
        rng,
        "tables/above",
        (
            "Which rows have more than {limit} {measure} in June?",
            "List each {label} with over {limit} {measure} in June.",
        ),
        (
            "{count} of them: {result}.",
            "More than {limit} in June: {result}.",
        ),
        facts,
        {"result": listed(others or names[1:] or ["none"]), "count": len(others)},
        context=table,
    )


KINDS: tuple[Maker, ...] = (total, rise, highest, above)
