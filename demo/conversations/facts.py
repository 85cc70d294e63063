"""Questions about the facts of the world, about brim itself, greetings, and what the model does not know."""

from dataclasses import dataclass
from random import Random

from demo.conversations.names import invented
from demo.example import Example, assistant, is_held_out, user
from demo.world import ABOUT_BRIM, RELATIONS, Relation

OPENERS = ("Hi! ", "Please: ", "Quick question: ", "Hello, ", "One more thing. ", "Now tell me: ", "I wonder: ", "So, ")
UNSEEN_SHARE = 0.1

GREETINGS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("Hello!", "Hi!", "Hello", "Hi", "Hey", "Hey!", "Good morning!", "Good evening!", "Hi there!", "Hello there!"),
     "Hello! How can I help you?"),
    (("How are you?", "How are you doing?", "How do you do?",
      "How is it going?"), "I am fine, thank you. What can I do for you?"),
    (("Thank you!", "Thanks!", "Thanks a lot!", "Thank you very much!", "Great, thanks!"), "You are welcome!"),
    (("Goodbye!", "Bye!", "See you!", "Bye bye!", "Good night!"), "Goodbye!"),
    (("Say hello.", "Say hi.", "Greet me.", "Say hello to me.", "Say hello!", "Say hi!"), "Hello!"),
)  # fmt: skip
UNKNOWN = (
    "Who won the match yesterday?", "Write a Python program.", "What is the meaning of life?", "Who is the president?",
    "How far away is the moon?", "Who wrote Hamlet?", "Can you draw a picture?", "How do I fix my car?",
    "What is love?",
    "What should I cook tonight?", "When was the war?", "Explain gravity.", "What is a black hole?",
    "Translate this for me.",
    "How old is the Earth?", "Who invented the telephone?", "Write a poem about the sea.",
    "What is the tallest mountain?",
    "How do airplanes fly?", "Which film should I watch?", "Write an essay about history.", "Solve my homework.",
)  # fmt: skip
DO_NOT_KNOW = "I do not know that. I am a very small model."


@dataclass(frozen=True)
class Fact:
    """One question about the world with its answer."""

    relation: Relation
    subject: str
    question: str
    held_out: bool

    @property
    def value(self) -> str:
        """The word that answers the question."""
        return self.relation.facts[self.subject]

    @property
    def answer(self) -> str:
        """The answer as a sentence."""
        return self.relation.answer.format(s=self.subject, v=self.value)


def draw_fact(rng: Random) -> Fact:
    """Return a random fact in a random wording; it is held out where the wording or their combination is."""
    relation = rng.choices(RELATIONS, weights=[len(relation.facts) for relation in RELATIONS])[0]
    subject = rng.choice(list(relation.facts))
    unseen = rng.random() < UNSEEN_SHARE
    wording = rng.choice(relation.unseen if unseen else relation.wordings)
    held_out = unseen or is_held_out(f"fact {wording} {subject}")
    return Fact(relation, subject, wording.format(s=subject), held_out)


def known_fact(rng: Random) -> Fact:
    """Return a random fact whose wording may be trained on."""
    while (fact := draw_fact(rng)).held_out:
        pass
    return fact


def vary(rng: Random, question: str) -> str:
    """Return the question as careless people type it: with an opener, in lower case or without its last mark."""
    roll = rng.random()
    if roll < 0.15:
        return rng.choice(OPENERS) + question
    if roll < 0.22:
        return question[0].lower() + question[1:]
    if roll < 0.30:
        return question.rstrip("?.")
    return question


def fact(rng: Random) -> Example:
    """One fact, sometimes with its thought in front."""
    drawn = draw_fact(rng)
    relation = drawn.relation
    thought = (
        f"They ask for the {relation.name} of {drawn.subject}. It is {drawn.value}." if rng.random() < 0.08 else ""
    )
    return Example((user(vary(rng, drawn.question)), assistant(drawn.answer, thought)), drawn.held_out)


def about_brim(rng: Random) -> Example:
    """A question about brim or about the model itself."""
    wordings, answer = rng.choice(ABOUT_BRIM)
    wording = rng.choice(wordings)
    return Example((user(vary(rng, wording)), assistant(answer)), wording == wordings[0])


def greeting(rng: Random) -> Example:
    """A greeting, a thank-you or a farewell."""
    wordings, answer = rng.choice(GREETINGS)
    return Example((user(rng.choice(wordings)), assistant(answer)))


def unknown(rng: Random) -> Example:
    """A question outside the small world, which the model declines."""
    if rng.random() < 0.5:
        return Example((user(vary(rng, rng.choice(UNKNOWN))), assistant(DO_NOT_KNOW)))
    relation = rng.choice(RELATIONS)
    name = invented(rng)
    subject = name if relation.name in ("capital", "country") else name.lower()
    return Example((user(vary(rng, rng.choice(relation.wordings).format(s=subject))), assistant(DO_NOT_KNOW)))
