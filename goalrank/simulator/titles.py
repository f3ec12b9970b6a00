"""Readable titles, made from the words of an item's topics."""

from __future__ import annotations

import numpy as np

from goalrank.simulator.config import WorldConfig
from goalrank.simulator.world import stream

TOPIC_WORDS = (
    "football",
    "cooking",
    "travel",
    "comedy",
    "music",
    "gaming",
    "science",
    "fashion",
    "cats",
    "history",
    "fitness",
    "gardening",
    "cinema",
    "painting",
    "chess",
    "cycling",
    "astronomy",
    "carpentry",
    "dance",
    "sailing",
    "robots",
    "architecture",
    "birds",
    "magic",
)
_OPENINGS = (
    "Five minutes of",
    "The secret life of",
    "A beginner's guide to",
    "The quiet joy of",
    "What nobody says about",
    "One day of",
    "The best of",
    "Behind the scenes of",
    "An honest look at",
    "The small world of",
)


def topic_word(topic: int) -> str:
    """A topic's word; topics beyond the list have numbers."""
    return TOPIC_WORDS[topic] if topic < len(TOPIC_WORDS) else f"topic {topic}"


def titles(config: WorldConfig, topics_IT: np.ndarray) -> list[str]:
    """One title an item, e.g. "The quiet joy of cats and chess"."""
    opening_I = stream(config, "titles").integers(0, len(_OPENINGS), len(topics_IT))
    return [
        f"{_OPENINGS[opening]} {_joined([topic_word(int(topic)) for topic in np.flatnonzero(topics_T)])}"
        for opening, topics_T in zip(opening_I, topics_IT, strict=True)
    ]


def _joined(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
