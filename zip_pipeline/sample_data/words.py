"""The vocabulary of the tasks."""

# ruff: noqa: SIM905 - a list of words reads better as a line of words

NAMES = (
    "Amara Ben Chloe Dmitri Elena Farid Grace Hiro Ingrid Jamal Keiko Liam Mei Nadia Omar Priya "
    "Quentin Rosa Samuel Tara Uma Viktor Wanda Xavier Yusuf Zoe Anton Bianca Carlos Dalia Emil "
    "Freya Goran Hana Ines Jonas Karim Lena Marco Noor"
).split()
GOODS = (
    "notebooks pencils apples oranges mugs candles stamps bagels scarves batteries lanterns "
    "cushions bowls posters brushes lamps baskets ropes keyrings sandwiches muffins postcards "
    "folders markers towels plates bottles gloves magnets puzzles"
).split()
CITIES = (
    "Alton Brookfield Carrick Dunmore Eastport Farley Glenwood Harwick Iverton Jarrow Kelso "
    "Langley Marston Norwell Oakham Penrith Quorn Redford Selby Thornton Upwell Varley Whitby Yarm"
).split()
NOUNS = (
    "garden river window ladder basket candle forest market bridge cotton dragon engine feather "
    "guitar hammer island jacket kettle lemon mirror needle orange pepper quartz ribbon saddle "
    "teapot umbrella violin walnut yellow zipper anchor blanket compass diamond elephant falcon "
    "granite harbour icicle journal kitchen lantern meadow notebook oyster parsley rabbit "
    "sandal tunnel uncle valley wagon balloon cabinet desert estate figure gravel helmet insect "
    "jungle kernel lizard marble napkin object pencil quiver rocket silver turtle velvet winter "
    "planet button canvas donkey embers fabric glacier hollow ivory jasmine"
).split()
INGREDIENTS = "flour sugar butter oats rice lentils almonds cocoa raisins barley couscous".split()
MONTHS = (
    "January February March April May June July August September October November December"
).split()
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
EVENTS = (
    "workshop|dentist's appointment|team meeting|book club|delivery|concert|training day|"
    "site visit|parents' evening|interview|rehearsal"
).split("|")
# Base form, third person, past, past participle of verbs that take an object.
VERBS = (
    ("carry", "carries", "carried", "carried"),
    ("write", "writes", "wrote", "written"),
    ("repair", "repairs", "repaired", "repaired"),
    ("bring", "brings", "brought", "brought"),
    ("check", "checks", "checked", "checked"),
    ("choose", "chooses", "chose", "chosen"),
    ("clean", "cleans", "cleaned", "cleaned"),
    ("draw", "draws", "drew", "drawn"),
    ("find", "finds", "found", "found"),
    ("hide", "hides", "hid", "hidden"),
    ("order", "orders", "ordered", "ordered"),
    ("pack", "packs", "packed", "packed"),
    ("paint", "paints", "painted", "painted"),
    ("sell", "sells", "sold", "sold"),
    ("send", "sends", "sent", "sent"),
    ("take", "takes", "took", "taken"),
)
OBJECTS = (
    "report letter parcel bicycle ticket window invoice poster machine basket photograph cupboard "
    "suitcase contract painting radio"
).split()
PERSONS = (
    "gardener teacher driver nurse cook clerk pilot tailor baker librarian plumber singer farmer "
    "editor guard waiter"
).split()
PLACES = (
    "in the kitchen|at the station|in the office|near the harbour|at the market|in the workshop|"
    "behind the school|at the library|in the garden|on the second floor"
).split("|")
