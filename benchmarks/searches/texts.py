"""The searched texts: known ones, and random ones that look for an expensive search."""

import random
from collections.abc import Sequence

KNOWN = {
    "two short words": ["er er", "er se", "er s", "e  z", "e z", "s of", "d t", "d a", "T I"],
    "common words": ["the", "and", "ing", " of ", "tion ", "the of and to in for is on with by"],
    "a rare word and common ones": ["quokka of the and for with from and this that are your"],
    "permuted words": ["bread knife", "knife bread", "blue green red", "table chair of the"],
    "one or two letters": ["e", "er", "q", "zx", "İ", "漢", "ß", "0", "12"],
    "repeated letters": ["ee", "eee", "eeee", "st st st", "ing ing ing", "a a a a"],
    "punctuation and white space": [" ", "  ", "   ", "%", "_", "\\", ", ", "\u2013", "(", "50%", "'", ":*", "' & '"],
    "255 letters": ["e" * 255, "er " * 85, "the " * 63, "the of and blue " * 15],
}
"""Texts by kind."""

_LENGTHS = (1, 2, 2, 3, 3, 3, 4, 4, 5, 5, 6, 7, 8, 10, 14)


def random_text(chosen: random.Random, names: Sequence[str], expensive: Sequence[str]) -> str:
    """A part of a name, parts of words, words in another order, or a change of an expensive text."""
    name = chosen.choice(names)
    words = [word for some in chosen.sample(names, 4) for word in some.split()]
    kind = chosen.random()
    if expensive and kind < 0.3:
        text = _changed(chosen, chosen.choice(expensive), words)
    elif kind < 0.6:
        length = chosen.choice(_LENGTHS)
        place = chosen.randrange(max(1, len(name) - length + 1))
        text = name[place : place + length]
    elif kind < 0.8:
        ends = [
            word[-chosen.randint(1, 3) :] if chosen.random() < 0.5 else word[: chosen.randint(1, 3)] for word in words
        ]
        text = " ".join(ends[: chosen.randint(2, 4)])
    elif kind < 0.95:
        text = " ".join(chosen.sample(words, min(len(words), chosen.randint(2, 10))))
    else:
        text = chosen.choice(["", " "]).join([words[0][:2]] * chosen.randint(2, 6))
    return text[:255] or "e"


def _changed(chosen: random.Random, text: str, words: Sequence[str]) -> str:
    place = chosen.randrange(len(text) + 1)
    match chosen.randrange(4):
        case 0:
            return text[:place] + text[place + 1 :]
        case 1:
            return text[:place] + chosen.choice(chosen.choice(words)) + text[place:]
        case 2:
            return f"{text} {chosen.choice(words)[: chosen.randint(1, 3)]}"
        case _:
            parts = text.split()
            return " ".join(chosen.sample(parts, len(parts)))
