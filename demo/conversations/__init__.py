"""The generators of chat data, one module per skill, and the mixture they are trained in."""

from collections.abc import Callable, Iterator, Mapping
from random import Random

from demo.conversations import answers_in_json, arithmetic, facts, instructions, memory, stories, tools
from demo.example import Example, Message, assistant, system

Draw = Callable[[Random], Example]

# How often each kind of conversation is drawn, by evaluation category.
MIXTURE: dict[str, dict[Draw, float]] = {
    "facts": {facts.fact: 8},
    "arithmetic": {
        arithmetic.single: 6, arithmetic.several: 1.5, arithmetic.word_problem: 4, arithmetic.drill: 1.5,
    },
    "tools": {tools.call: 13, tools.call_and_answer: 9, tools.two_calls: 4, tools.no_call: 3},
    "json": {
        answers_in_json.fact: 8, answers_in_json.arithmetic: 3, answers_in_json.record: 7, answers_in_json.array: 5,
    },
    "memory": {
        memory.recall: 7, memory.told_together: 3, memory.follow_up: 2, memory.first_question: 5,
        arithmetic.running_total: 2,
    },
    "instructions": {
        instructions.capitals: 7, instructions.pirate: 0.7, instructions.one_word: 5, instructions.sign_off: 3,
        instructions.persona: 2, instructions.knows_user: 1,
    },
    "brim": {facts.about_brim: 2, facts.greeting: 1, facts.unknown: 0.7},
    "stories": {stories.story: 1.5, stories.plain: 0.7},
}  # fmt: skip

PLAIN_SYSTEM_PROMPTS = (
    "You are a helpful assistant.", "You are brim, a helpful assistant.", "You are a helpful AI assistant.",
    "Be helpful.",
    "You are a friendly assistant.", "Answer the user's questions.", "You answer briefly.", "You are an assistant.",
)  # fmt: skip
PLAIN_SYSTEM_SHARE = 0.12
LONG_SHARE = 0.006
MEDIUM_SHARE = 0.05
LONG_CHARACTERS = 5000


def draw(rng: Random, category: str, *, held_out: bool) -> Example:
    """Return a random example of a category from the training side or from the evaluation side."""
    kinds = MIXTURE[category]
    while True:
        example = rng.choices(list(kinds), weights=list(kinds.values()))[0](rng)
        if example.held_out == held_out:
            return example


def training_examples(seed: int, focus: Mapping[str, float] | None = None) -> Iterator[Example]:
    """Yield training examples without end, the same ones for the same seed; none of them is held out.

    Args:
        seed: The seed.
        focus: How many times as often as in `MIXTURE` some categories are drawn.
    """
    rng = Random(seed)
    categories = list(MIXTURE)
    weights = [sum(kinds.values()) * (focus or {}).get(category, 1.0) for category, kinds in MIXTURE.items()]
    while True:
        roll = rng.random()
        if roll < LONG_SHARE:
            yield _joined(rng, rng.randint(LONG_CHARACTERS // 4, LONG_CHARACTERS))
        elif roll < LONG_SHARE + MEDIUM_SHARE:
            yield _joined(rng, rng.randint(200, 900))
        else:
            yield _with_system(rng, draw(rng, rng.choices(categories, weights)[0], held_out=False))


def _with_system(rng: Random, example: Example) -> Example:
    """Give an example that has no system prompt one that changes nothing, now and then."""
    if example.plain or example.messages[0]["role"] == "system" or rng.random() >= PLAIN_SYSTEM_SHARE:
        return example
    return Example((system(rng.choice(PLAIN_SYSTEM_PROMPTS)), *example.messages), False, example.tools)


def _joined(rng: Random, characters: int) -> Example:
    """Return one conversation of unrelated exchanges of about so many characters, for the positions far out."""
    messages: list[Message] = []
    while sum(len(message["content"]) for message in messages) < characters:
        category = rng.choice(("facts", "facts", "arithmetic", "json", "memory", "brim", "stories"))
        example = draw(rng, category, held_out=False)
        if not example.plain:
            messages += [_without_thought(message) for message in example.messages]
    return Example(tuple(messages))


def _without_thought(message: Message) -> Message:
    return assistant(message["content"]) if message["role"] == "assistant" else message
