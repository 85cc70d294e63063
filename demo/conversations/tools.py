"""Questions that call for a tool: the call, the answer from its result, and questions that need none of the tools."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from demo.conversations import arithmetic, facts
from demo.conversations.names import city, person
from demo.example import Example, Message, Tool, ToolCall, assistant, is_held_out, user
from demo.world import COLOUR_NAMES, FOODS, LANGUAGES, OBJECTS, TRAVEL_WORDS

Draw = Callable[[Random], object]


@dataclass(frozen=True)
class Parameter:
    """One argument of a tool: the names it may have, its JSON type and where its values come from."""

    names: tuple[str, ...]
    type: str
    draw: Draw
    enum: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of tool, offered under several names.

    Attributes:
        names: The function's possible names.
        description: What it does.
        parameters: By the slot each fills in the questions.
        asks: Questions with slots.
        result: By key, where a value of the tool's result comes from.
        answer: The final answer, with slots of the parameters and the result.
    """

    names: tuple[str, ...]
    description: str
    parameters: dict[str, Parameter]
    asks: tuple[str, ...]
    result: dict[str, Draw] = field(default_factory=dict[str, Draw])
    answer: str = "Done."


def _number(low: int, high: int) -> Draw:
    return lambda rng: rng.randint(low, high)


def _of(values: tuple[str, ...] | list[str]) -> Draw:
    return lambda rng: rng.choice(values)


def _title(rng: Random) -> str:
    return " ".join(rng.sample([*OBJECTS, *FOODS, *COLOUR_NAMES, *TRAVEL_WORDS], k=rng.choice((1, 1, 2))))


CITY = Parameter(("city", "location"), "string", city)
CONDITIONS = ("sunny", "cloudy", "rainy", "windy", "snowy", "foggy", "clear")
ROOMS = ("kitchen", "bedroom", "bathroom", "hall", "cellar", "garage", "office", "attic")
CURRENCIES = ("euros", "dollars", "pounds", "francs")

KINDS = (
    Kind(("get_weather", "get_weather", "get_current_weather"),
         "Get the current weather in a city",
         {"city": CITY},
         ("What is the weather in {city}?", "How is the weather in {city}?", "What's the weather like in {city}?",
          "Tell me the weather in {city}.", "Is it raining in {city}?", "Do I need an umbrella in {city}?",
          "What is the weather like in {city} today?", "Weather in {city}?", "How warm is it in {city}?"),
         {"temperature": _number(-9, 35), "condition": _of(CONDITIONS)},
         "It is {temperature} degrees and {condition} in {city}."),
    Kind(("get_weather", "get_current_weather"), "Get the current weather in a city",
         {"city": CITY, "unit": Parameter(("unit",), "string", _of(("celsius", "fahrenheit")), ("celsius",
         "fahrenheit"))},
         ("What is the weather in {city} in {unit}?", "How warm is it in {city} in {unit}?",
          "Tell me the weather in {city} in {unit}."),
         {"temperature": _number(-9, 35), "condition": _of(CONDITIONS)},
         "It is {temperature} degrees and {condition} in {city}."),
    Kind(("get_time", "get_current_time"), "Get the local time in a city", {"city": CITY},
         ("What time is it in {city}?", "Tell me the time in {city}.", "What is the time in {city}?",
          "How late is it in {city}?"),
         {"hour": _number(0, 23), "minute": _number(10, 59)}, "It is {hour}:{minute} in {city}."),
    Kind(("get_population",), "Get the number of people in a city, in thousands",
         {"city": CITY},
         ("How many people live in {city}?", "What is the population of {city}?", "Tell me the population of {city}."),
         {"population": _number(10, 999)}, "{population} thousand people live in {city}."),
    Kind(("add",), "Add two numbers",
         {"a": Parameter(("a",), "integer", _number(11, 99)),
          "b": Parameter(("b",), "integer", _number(11, 99))},
         ("What is {a} + {b}?", "Add {a} and {b}.", "What is {a} plus {b}?", "How much is {a} + {b}?"),
         {"result": _number(22, 198)}, "{a} + {b} = {result}."),
    Kind(("convert_currency",), "Convert an amount of money to another currency",
         {"amount": Parameter(("amount",), "number", _number(1, 99)),
          "source": Parameter(("from",), "string", _of(CURRENCIES)),
          "target": Parameter(("to",), "string", _of(CURRENCIES))},
         ("Convert {amount} {source} to {target}.", "How much is {amount} {source} in {target}?",
          "Change {amount} {source} into {target}."),
         {"result": _number(1, 999)}, "{amount} {source} is {result} {target}."),
    Kind(("set_timer",), "Start a timer",
         {"minutes": Parameter(("minutes",), "integer", _number(1, 90))},
         ("Set a timer for {minutes} minutes.", "Start a timer of {minutes} minutes.",
          "Wake me in {minutes} minutes.")),
    Kind(("send_message",), "Send a text message to a person",
         {"person": Parameter(("to",), "string", person),
          "text": Parameter(("text",), "string", _title)},
         ("Send {person} the message: {text}", "Text {person}: {text}", "Write to {person}: {text}")),
    Kind(("call_person",), "Call a person on the phone",
         {"person": Parameter(("name",), "string", person)},
         ("Call {person}.", "Phone {person}, please.", "I want to talk to {person}.")),
    Kind(("find_recipe",), "Find a recipe for a dish",
         {"dish": Parameter(("dish",), "string", _of(FOODS))},
         ("How do I make {dish}?", "Find a recipe for {dish}.", "I want to cook {dish}.")),
    Kind(("add_to_list",), "Add an item to the shopping list",
         {"item": Parameter(("item",), "string", _title)},
         ("Add {item} to my shopping list.", "I need to buy {item}.", "Put {item} on the list.")),
    Kind(("translate",), "Translate text to another language",
         {"text": Parameter(("text",), "string", _title),
          "language": Parameter(("language",), "string", _of(LANGUAGES))},
         ("Translate {text} to {language}.", "What is {text} in {language}?", "How do you say {text} in {language}?")),
    Kind(("turn_on_light",), "Turn on the light in a room",
         {"room": Parameter(("room",), "string", _of(ROOMS))},
         ("Turn on the light in the {room}.", "Light in the {room}, please.", "It is dark in the {room}.")),
    Kind(("get_distance",), "Get the distance between two cities",
         {"start": Parameter(("start",), "string", city),
          "end": Parameter(("end",), "string", city)},
         ("How far is it from {start} to {end}?", "What is the distance from {start} to {end}?"),
         {"kilometers": _number(10, 999)}, "It is {kilometers} kilometers from {start} to {end}."),
    Kind(("search",), "Search the web",
         {"query": Parameter(("query",), "string", _title)},
         ("Search the web for {query}.", "Look up {query}.", "Search for {query}.", "Find {query} on the web.")),
    Kind(("play_music",), "Play music by an artist",
         {"artist": Parameter(("artist",), "string", person)},
         ("Play something by {artist}.", "Play music by {artist}.", "I want to hear {artist}.")),
    Kind(("book_table",), "Book a table in a restaurant",
         {"place": Parameter(("restaurant",), "string", person),
          "people": Parameter(("people",), "integer", _number(1, 12))},
         ("Book a table for {people} at {place}.", "Reserve a table at {place} for {people} people.")),
    Kind(("roll_dice",), "Roll some dice",
         {"count": Parameter(("count",), "integer", _number(1, 12))},
         ("Roll {count} dice.", "Throw {count} dice."), {"total": _number(1, 72)}, "The total is {total}."),
)  # fmt: skip

# Optional arguments that no question asks for, and that a call leaves out.
UNUSED: dict[str, dict[str, object]] = {
    "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
    "limit": {"type": "integer"},
    "verbose": {"type": "boolean"},
    "format": {"type": "string", "enum": ["json", "text"]},
    "user_id": {"type": "string"},
}
TWICE = (
    (KINDS[0], "What is the weather in {first} and in {second}?"),
    (KINDS[0], "How is the weather in {first} and in {second}?"),
    (KINDS[2], "What time is it in {first} and in {second}?"),
    (KINDS[3], "How many people live in {first} and in {second}?"),
)


@dataclass(frozen=True)
class Offer:
    """A tool as offered in one conversation: a kind, under one of its names and with one set of argument names."""

    kind: Kind
    name: str
    argument_names: dict[str, str]
    schema: Tool

    def question(self, rng: Random) -> tuple[str, dict[str, object]]:
        """Return a question that calls for this tool, and the values of its slots."""
        values = {slot: parameter.draw(rng) for slot, parameter in self.kind.parameters.items()}
        return rng.choice(self.kind.asks).format(**values), values

    def call(self, values: dict[str, object]) -> ToolCall:
        """Return the call with these values."""
        arguments = {self.argument_names[slot]: value for slot, value in values.items()}
        return {"type": "function", "function": {"name": self.name, "arguments": arguments}}


def _offer(rng: Random, kind: Kind) -> Offer:
    name = rng.choice(kind.names)
    argument_names = {slot: rng.choice(parameter.names) for slot, parameter in kind.parameters.items()}
    described = rng.random() < 0.3
    properties: dict[str, object] = {}
    for slot, parameter in kind.parameters.items():
        entry: dict[str, object] = {"type": parameter.type}
        if parameter.enum and rng.random() < 0.7:
            entry["enum"] = list(parameter.enum)
        if described:
            entry["description"] = f"The {slot}"
        properties[argument_names[slot]] = entry
    parameters: dict[str, object] = {"type": "object", "properties": properties}
    if rng.random() < 0.7:
        parameters["required"] = list(properties)
    if "unit" not in kind.parameters and rng.random() < 0.2:
        unused = rng.choice(list(UNUSED))
        properties[unused] = UNUSED[unused]
    if rng.random() < 0.1:
        parameters["additionalProperties"] = False
    description = kind.description + ("." if rng.random() < 0.3 else "")
    schema: Tool = {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }
    return Offer(kind, name, argument_names, schema)


def _offers(rng: Random) -> list[Offer]:
    """Return one to three tools of different purposes, the first of which will be asked for."""
    kinds: list[Kind] = []
    for kind in rng.sample(KINDS, k=rng.choice((1, 1, 2, 2, 3))):
        if kind.description not in [chosen.description for chosen in kinds]:
            kinds.append(kind)
    return [_offer(rng, kind) for kind in kinds]


def _tools(rng: Random, offers: list[Offer]) -> tuple[Tool, ...]:
    return tuple(offer.schema for offer in rng.sample(offers, k=len(offers)))


def _calling(*calls: ToolCall) -> Message:
    return {"role": "assistant", "content": "", "tool_calls": list(calls)}


def _answering(rng: Random, offer: Offer, values: dict[str, object]) -> tuple[Message, Message]:
    """Return the tool's result and the answer that tells it."""
    result = {key: draw(rng) for key, draw in offer.kind.result.items()}
    content = json.dumps(result or {"status": "ok"})
    return {"role": "tool", "content": content}, assistant(offer.kind.answer.format(**values, **result))


def call(rng: Random) -> Example:
    """A question that calls for one of the tools, and the call."""
    offers = _offers(rng)
    question, values = offers[0].question(rng)
    messages = (user(question), _calling(offers[0].call(values)))
    return Example(messages, is_held_out(f"call {question}"), _tools(rng, offers))


def call_and_answer(rng: Random) -> Example:
    """A question, the call, the tool's result and the answer; often a second round of the same or another tool."""
    offers = _offers(rng)
    messages: list[Message] = []
    held_out = False
    for offer in (offers[0], rng.choice(offers))[: rng.choice((1, 2, 2))]:
        question, values = offer.question(rng)
        held_out = held_out or is_held_out(f"call {question}")
        messages += [user(question), _calling(offer.call(values)), *_answering(rng, offer, values)]
    return Example(tuple(messages), held_out, _tools(rng, offers))


def two_calls(rng: Random) -> Example:
    """A question about two cities, answered with two calls at once and then from both results."""
    kind, ask = rng.choice(TWICE)
    offers = [_offer(rng, kind)]
    first, second = city(rng), city(rng)
    question = ask.format(first=first, second=second)
    values: list[dict[str, object]] = [{"city": first}, {"city": second}]
    told = [_answering(rng, offers[0], each) for each in values]
    answer = assistant(" ".join(reply["content"] for _, reply in told))
    messages = (
        user(question), _calling(*(offers[0].call(each) for each in values)), *(result for result, _ in told), answer,
    )  # fmt: skip
    return Example(messages, is_held_out(f"call {question}"), _tools(rng, offers))


def no_call(rng: Random) -> Example:
    """A question that none of the tools on offer is needed for."""
    tools = _tools(rng, _offers(rng))
    if rng.random() < 0.6:
        fact = facts.draw_fact(rng)
        return Example((user(facts.vary(rng, fact.question)), assistant(fact.answer)), fact.held_out, tools)
    if rng.random() < 0.5:
        question, drawn, held_out = arithmetic.draw_question(rng)
        return Example((user(question), assistant(drawn.equation + ".")), held_out, tools)
    greeting = facts.greeting(rng)
    return Example(greeting.messages, False, tools)
