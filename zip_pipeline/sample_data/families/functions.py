"""Small Python functions, with an example that holds."""

from dataclasses import replace
from random import Random

from zip_pipeline.sample_data.families.recipes import RECIPES, Recipe
from zip_pipeline.sample_data.task import Maker, Task, make_task
from zip_pipeline.sample_data.words import NOUNS

# How a list and its items are called.
_NUMBER_NAMES = (
    ("numbers", "number"),
    ("values", "value"),
    ("scores", "score"),
    ("amounts", "amount"),
    ("xs", "x"),
)
_WORD_NAMES = (("words", "word"), ("names", "name"), ("labels", "label"), ("terms", "term"))
_WANTED = (
    "Write a Python function `{function}({takes})` that {wants}.",
    "I need a function in Python. It is called `{function}`, takes a list `{takes}` and {wants}.",
    "Define `{function}` in Python: given `{takes}`, it {wants}. Add an example.",
    "How would you code this in Python: a function {function} that {wants}?",
    "Python, please: `{function}` gets a list called {takes} and {wants}. Show what it returns.",
)
_GIVEN = (
    "```python\n{code}\n```\n\n{why}.\n\n`{call}` gives `{result}`, `{second}` gives `{other}`.",
    "Here it is:\n\n```python\n{code}\n```\n\nFor instance, `{call}` returns `{result}`. {why}.",
    "{why}:\n```python\n{code}\n```\n>>> {call}\n{result}\n>>> {second}\n{other}",
    "```python\n{code}\n\nprint({call})  # {result}\nprint({second})  # {other}\n```",
)


def run_code(code: str, call: str) -> object:
    """Return what a call gives after the code has been executed."""
    scope: dict[str, object] = {}
    exec(code, scope)
    return eval(call, scope)


def _renamed(rng: Random, recipe: Recipe) -> Recipe:
    """Return the recipe with other names for its list and the items of it."""
    many, one = rng.choice(_WORD_NAMES if recipe.takes == "words" else _NUMBER_NAMES)

    def rename(text: str) -> str:
        return text.replace(recipe.takes, many).replace(recipe.takes[:-1], one)

    code = {name: rename(getattr(recipe, name)) for name in ("takes", "body", "fault", "bug")}
    return replace(recipe, **code)


def _code(recipe: Recipe, body: str) -> str:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"def {recipe.name}({recipe.takes}):\n{lines}"


def _argument(rng: Random, takes_words: bool) -> str:
    if takes_words:
        return str(rng.sample(NOUNS, rng.randint(3, 6)))
    return str([rng.randint(0, 30) for _ in range(rng.randint(4, 8))])


def function(rng: Random) -> Task:
    """Make a task that asks for a function."""
    original = rng.choice(RECIPES)
    recipe = _renamed(rng, original)
    smaller = rng.randint(2, 6)
    larger = smaller + rng.randint(3, 20)

    def filled(text: str) -> str:
        return text.replace("K", str(smaller)).replace("M", str(larger))

    code = filled(_code(recipe, recipe.body))
    wrong = filled(_code(recipe, recipe.body.replace(recipe.fault, recipe.bug)))
    name = filled(recipe.name)
    call, second = (f"{name}({_argument(rng, original.takes == 'words')})" for _ in range(2))
    facts = {
        "function": name,
        "takes": recipe.takes,
        "wants": filled(recipe.wants),
        "why": filled(recipe.why),
        "code": code,
        "call": call,
        "second": second,
        "result": repr(run_code(code, call)),
        "other": repr(run_code(code, second)),
    }
    changes = {
        "code": wrong,
        "result": repr(run_code(wrong, call)),
        "other": repr(run_code(wrong, second)),
    }
    return make_task(rng, "functions/function", _WANTED, _GIVEN, facts, changes, curt="{code}")


KINDS: tuple[Maker, ...] = (function,)
