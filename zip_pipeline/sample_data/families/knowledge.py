"""Questions about countries and chemical elements."""

# ruff: noqa: SIM905 - a list of words reads better as a line of words

from random import Random

from zip_pipeline.sample_data.task import Maker, Task, make_task

# Country, capital, continent, currency.
COUNTRIES = tuple(
    tuple(row.split(","))
    for row in """Argentina,Buenos Aires,South America,peso
Austria,Vienna,Europe,euro
Bangladesh,Dhaka,Asia,taka
Brazil,Brasilia,South America,real
Cambodia,Phnom Penh,Asia,riel
Canada,Ottawa,North America,dollar
Chile,Santiago,South America,peso
China,Beijing,Asia,yuan
Colombia,Bogota,South America,peso
Croatia,Zagreb,Europe,euro
Cuba,Havana,North America,peso
Denmark,Copenhagen,Europe,krone
Egypt,Cairo,Africa,pound
Ethiopia,Addis Ababa,Africa,birr
Finland,Helsinki,Europe,euro
France,Paris,Europe,euro
Germany,Berlin,Europe,euro
Ghana,Accra,Africa,cedi
Greece,Athens,Europe,euro
Hungary,Budapest,Europe,forint
Iceland,Reykjavik,Europe,krona
India,New Delhi,Asia,rupee
Iraq,Baghdad,Asia,dinar
Ireland,Dublin,Europe,euro
Italy,Rome,Europe,euro
Jamaica,Kingston,North America,dollar
Japan,Tokyo,Asia,yen
Jordan,Amman,Asia,dinar
Kenya,Nairobi,Africa,shilling
Laos,Vientiane,Asia,kip
Latvia,Riga,Europe,euro
Malaysia,Kuala Lumpur,Asia,ringgit
Mexico,Mexico City,North America,peso
Mongolia,Ulaanbaatar,Asia,tugrik
Morocco,Rabat,Africa,dirham
Nepal,Kathmandu,Asia,rupee
Nigeria,Abuja,Africa,naira
Norway,Oslo,Europe,krone
Pakistan,Islamabad,Asia,rupee
Peru,Lima,South America,sol
Poland,Warsaw,Europe,zloty
Portugal,Lisbon,Europe,euro
Romania,Bucharest,Europe,leu
Serbia,Belgrade,Europe,dinar
Spain,Madrid,Europe,euro
Sweden,Stockholm,Europe,krona
Thailand,Bangkok,Asia,baht
Tunisia,Tunis,Africa,dinar
Uganda,Kampala,Africa,shilling
Ukraine,Kyiv,Europe,hryvnia
Uruguay,Montevideo,South America,peso
Vietnam,Hanoi,Asia,dong
Zambia,Lusaka,Africa,kwacha""".splitlines()
)
# Element and symbol, in the order of their atomic numbers from 1 on.
ELEMENTS = tuple(
    tuple(pair.split(":"))
    for pair in (
        "hydrogen:H helium:He lithium:Li beryllium:Be boron:B carbon:C nitrogen:N oxygen:O "
        "fluorine:F neon:Ne sodium:Na magnesium:Mg aluminium:Al silicon:Si phosphorus:P sulfur:S "
        "chlorine:Cl argon:Ar potassium:K calcium:Ca scandium:Sc titanium:Ti vanadium:V "
        "chromium:Cr manganese:Mn iron:Fe cobalt:Co nickel:Ni copper:Cu zinc:Zn gallium:Ga "
        "germanium:Ge arsenic:As selenium:Se bromine:Br krypton:Kr"
    ).split()
)


def capital(rng: Random) -> Task:
    """Make a task about two capitals."""
    (first, first_city, *_), (second, second_city, *_), other = rng.sample(COUNTRIES, 3)
    facts = {
        "first": first,
        "second": second,
        "first_city": first_city,
        "second_city": second_city,
        "result": f"{first_city} and {second_city}",
    }
    return make_task(
        rng,
        "knowledge/capital",
        (
            "What are the capitals of {first} and {second}?",
            "Name the capital of {first} and the capital of {second}.",
            "Which cities are the capitals of {first} and of {second}?",
        ),
        (
            "The capital of {first} is {first_city} and that of {second} is {second_city}.",
            "{first}: {first_city}. {second}: {second_city}.",
            "{first_city} is the capital of {first}; {second_city} is the capital of {second}.",
        ),
        facts,
        {"second_city": other[1], "result": f"{first_city} and {other[1]}"},
    )


def portrait(rng: Random) -> Task:
    """Make a task about one country."""
    (name, city, continent, currency), other, another = rng.sample(COUNTRIES, 3)
    facts = {
        "name": name,
        "city": city,
        "continent": continent,
        "currency": currency,
        "other": other[0],
        "other_currency": other[3],
        "result": f"{city}, {continent}, {currency}; {other[3]}",
    }
    wrong_city = another[1]
    return make_task(
        rng,
        "knowledge/portrait",
        (
            "Give capital, continent and currency of {name}, and the currency of {other}.",
            "Tell me about {name}: capital, continent, currency. And how do they pay in {other}?",
        ),
        (
            "{name} lies in {continent}. Its capital is {city} and its currency is the {currency}. "
            "People in {other} pay with the {other_currency}.",
            "Capital: {city}. Continent: {continent}. Currency: {currency}. The currency of "
            "{other} is the {other_currency}.",
        ),
        facts,
        {"city": wrong_city, "result": f"{wrong_city}, {continent}, {currency}; {other[3]}"},
    )


def element(rng: Random) -> Task:
    """Make a task about two chemical elements."""

    # ruff: noqa: SIM905 - a list of words reads better as a line of words
    places = rng.sample(range(len(ELEMENTS)), 3)
    (first, symbol), (second, second_symbol), _ = (ELEMENTS[place] for place in places)
    numbers = [place + 1 for place in places]
    facts = {
        "first": first,
        "symbol": symbol,
        "number": numbers[0],
        "second": second,
        "second_symbol": second_symbol,
        "second_number": numbers[1],
        "result": f"{symbol} {numbers[0]}, {second_symbol} {numbers[1]}",
    }
    return make_task(
        rng,
        "knowledge/element",
        (
            "What are the symbols and atomic numbers of {first} and {second}?",
            "Give symbol and atomic number for {first} and for {second}.",
        ),
        (
            "{first} has the symbol {symbol} and atomic number {number}; {second} has the symbol "
            "{second_symbol} and atomic number {second_number}.",
            "{first}: {symbol}, number {number}. {second}: {second_symbol}, number "
            "{second_number}.",
        ),
        facts,
        {"number": numbers[2], "result": f"{symbol} {numbers[2]}, {second_symbol} {numbers[1]}"},
    )


KINDS: tuple[Maker, ...] = (capital, portrait, element)
