"""The forms of a resource's name: in prose, URLs, JSON, Python and SQL."""

import builtins
import keyword
import re
from collections.abc import Collection
from dataclasses import dataclass, field

_WORDS = re.compile(r"[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*")

_MAX_LENGTH = 30
"""PostgreSQL cuts names after 63 bytes. The longest constraint name has 22 characters besides the table's."""

_SPOKEN_VOWEL = re.compile(r"(?!uni(?!n)|use|usa|usu|util|eu|one\b|once\b)[aeiou]|hour|honest|honou?r|heir")

SQL_RESERVED = frozenset(
    re.findall(
        r"\w+",
        """
        all analyse analyze and any array as asc asymmetric authorization binary both case cast
        check collate collation column concurrently constraint create cross current_catalog
        current_date current_role current_schema current_time current_timestamp current_user default
        deferrable desc distinct do else end except false fetch for foreign freeze from full grant
        group having ilike in initially inner intersect into is isnull join lateral leading left
        like limit localtime localtimestamp natural not notnull null offset on only or order outer
        overlaps placing primary references returning right select session_user similar some
        symmetric system_user table tablesample then to trailing true union unique user using
        variadic verbose when where window with
        """,
    )
)
"""The words that PostgreSQL does not take as the name of a table unless they are quoted."""


class UnusableNameError(ValueError):
    """A name cannot be used. The message says why, and what to write."""


def plural_of(singular: str) -> str:
    """The regular English plural."""
    if re.search(r"[^aeiou]y$", singular):
        return f"{singular[:-1]}ies"
    return f"{singular}es" if re.search(r"(?:s|x|z|ch|sh)$", singular) else f"{singular}s"


def article(word: str) -> str:
    """The article before the word."""
    return "an" if _SPOKEN_VOWEL.match(word) else "a"


@dataclass(frozen=True, slots=True)
class Name:
    """A resource's name. Python's own words and the names in `taken` get another form where they would collide."""

    singular: str
    plural: str
    taken: Collection[str] = field(default=())

    @classmethod
    def parse(cls, singular: str, plural: str | None = None) -> "Name":
        """The name that was given on the command line.

        Raises:
            UnusableNameError: It is malformed or too long.
        """
        plural = plural or plural_of(singular)
        for word in (singular, plural):
            if not _WORDS.fullmatch(word):
                raise UnusableNameError(
                    f"{word!r} is not a name: write lower-case letters and digits, and - or _ between words, "
                    "as in order or purchase_order."
                )
            if len(word) > _MAX_LENGTH:
                raise UnusableNameError(f"{word!r} is too long: write at most {_MAX_LENGTH} characters.")
        name = cls(singular.replace("-", "_"), plural.replace("-", "_"))
        if keyword.iskeyword(name.plural):
            raise UnusableNameError(f"The plural {plural!r} is a word of Python: name another one.")
        return name

    def forms(self) -> dict[str, str]:
        """Each form by its name in templates."""
        variable = self._free(self.singular)
        text, texts = self.singular.replace("_", " "), self.plural.replace("_", " ")
        camel, camels = _camel(self.singular), _camel(self.plural)
        is_free = not (keyword.iskeyword(camel) or hasattr(builtins, camel) or camel in self.taken)
        return {
            "a": article(self.singular),
            "A": article(self.singular).capitalize(),
            "text": text,
            "texts": texts,
            "Text": text.capitalize(),
            "Texts": texts.capitalize(),
            "word": self.singular,
            "words": self.plural,
            "WORD": self.singular.upper(),
            "WORDS": self.plural.upper(),
            "Camel": camel,
            "Camels": camels,
            "Class": camel if is_free else f"{camel}Record",
            "variable": variable,
            "variables": self._free(self.plural if self.plural != self.singular else f"{self.plural}_list"),
            "path": self.plural.replace("_", "-"),
            "Path": self.plural.replace("_", "-").capitalize(),
            "path_one": self.singular.replace("_", "-") if self.singular != self.plural else f"{self.plural}-one",
            "table": f"{self.singular}_rows" if self.plural in SQL_RESERVED else self.plural,
            "flat": self.singular.replace("_", ""),
            "flats": self.plural.replace("_", ""),
        }

    def _free(self, identifier: str) -> str:
        """The identifier, or with an underscore behind it where another meaning of it is in the way."""
        is_taken = keyword.iskeyword(identifier) or hasattr(builtins, identifier) or identifier in self.taken
        return f"{identifier}_" if is_taken else identifier


def _camel(snake: str) -> str:
    return "".join(part.capitalize() for part in snake.split("_"))
