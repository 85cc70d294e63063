"""Words to be copied from the context: real names, and invented ones, so that copying is learned and not recall."""

from random import Random

from demo.world import CITIES, NAMES, SYLLABLES

INVENTED_SHARE = 0.12


def invented(rng: Random) -> str:
    """Return a made-up capitalized name of two syllables."""
    return "".join(rng.choices(SYLLABLES, k=2)).capitalize()


def person(rng: Random) -> str:
    """Return a person's name."""
    return invented(rng) if rng.random() < INVENTED_SHARE else rng.choice(NAMES)


def city(rng: Random) -> str:
    """Return a city's name."""
    return invented(rng) if rng.random() < INVENTED_SHARE else rng.choice(CITIES)
