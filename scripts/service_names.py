"""The name of the service in the files of the project: what is not about its first resource."""

import hashlib
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping

from scripts.names import SQL_RESERVED, Name, UnusableNameError, article

_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")

_MAX_LENGTH = 26
"""The id of a revision has at most 32 characters, and adds 6 to the name."""

_PLACES = [
    (r"\b([Aa])n items API\b", r"\1_SERVICE_ARTICLE SERVICE_TEXT API"),
    (r"\bitems API\b", "SERVICE_TEXT"),
    (r"\bItems API\b", "SERVICE_TITLE"),
    (r"\bitems-api\b", "SERVICE_KEBAB"),
    (r"(?<![A-Za-z])items_api(?![A-Za-z])", "SERVICE_SNAKE"),
    (r"\bItemsApi", "SERVICE_CAMEL"),
    (r"\bitemsapi", "SERVICE_FLAT"),
    # What is the service's own in a shared place: roles, revisions, databases, namespaces, images, files, hosts.
    (r"\bitems_(?!id_seq)(?=[a-z0-9{])", "SERVICE_SHORT_"),
    (r"\bitems_(?=\")", "SERVICE_SHORT_"),
    (r"\bitems(?=\\+_%)", "SERVICE_SHORT"),
    (r"\bitems-(?=[a-z0-9\"{])", "SERVICE_SHORT_KEBAB-"),
    (r"(?<=dbname[ =])items\b", "SERVICE_SHORT"),
    (r"(?<=POSTGRES_DB=)items\b|(?<=POSTGRES_DB: )items\b|(?<=CREATE DATABASE )items\b", "SERVICE_SHORT"),
    (r"(?m)(?<=^name: )items$|(?<=^)items(?= = host=)|(?<=`)items(?= = host=)", "SERVICE_SHORT"),
    (r"(postgres(?:ql)?://[^\s'\"`]*/)items\b", r"\1SERVICE_SHORT"),
    (r"(?<=//)items(?=:)|(?<=for user )items\b", "SERVICE_SHORT"),
    (r"\b[Ii]tems(?=\.(?:sock|dump|[Ee]xample))", "SERVICE_SHORT_KEBAB"),
]
"""Where the service is named, and the word that stands for the form of the new name."""

_CURSOR = ('person=b"items"', 'person=b"cursor"'), ("AAAAAAAAAAE_rb7i", "EXAMPLE_OF_A_CURSOR")


_WORDS_OF_OTHERS = [
    (r"deploy/kubernetes/.*", r"(?m)^\s*(?:- )?items:"),  # of Kubernetes
    (r"tests/deploy/test_.*\.py", r'\["items"\]'),  # of Kubernetes
    (r"app/http/openapi\.py", r'member\["items"\]'),  # of JSON Schema
    (r"tests/deploy/conftest\.py", r"\bitems(?=: |:\n|\.)"),  # of pytest
]
"""Where the word has another meaning, by the path. They stay as they are, as does the method of dictionaries."""

_WORD_OF_OTHERS = "OTHERS_WORD"
"""Stands for the word where it has another meaning."""


class ServiceName:
    """The name of a service, such as `orders-api`."""

    def __init__(self, name: str, resource: Name) -> None:
        """Take the name from the command line.

        Args:
            resource: The first resource. A test compares the name of the service in all files, so that it differs.

        Raises:
            UnusableNameError: It is malformed or too long.
        """
        if not _NAME.fullmatch(name):
            raise UnusableNameError(
                f"{name!r} is not a name of a service: write lower-case letters and digits, and - between words, "
                "as in orders-api."
            )
        if len(name) > _MAX_LENGTH:
            raise UnusableNameError(f"{name!r} is too long: write at most {_MAX_LENGTH} characters.")
        if "-" not in name or name.replace("-", "") in (resource.singular + resource.plural).replace("_", ""):
            raise UnusableNameError(
                f"{name!r} cannot be told from other words: write two words that are not the name of the resource, "
                f"as in {name}-api."
            )
        self.name = name
        short = name.rpartition("-")[0]
        self.short = f"{short}-data" if short in SQL_RESERVED else short
        """The name without its last word: roles, databases and revisions begin with it."""

    def forms(self) -> Mapping[str, str]:
        """Each form by the word that stands for it, longer words first."""
        words = [word.upper() if word in ("api", "http", "sql") else word for word in self.name.split("-")]
        title = " ".join(word[:1].upper() + word[1:] for word in words)
        text = " ".join(words)
        with_article = article(self.name)
        forms = {
            "A_SERVICE_ARTICLE SERVICE_TEXT API": f"{with_article.capitalize()} {text}",
            "a_SERVICE_ARTICLE SERVICE_TEXT API": f"{with_article} {text}",
            "SERVICE_TEXT": text,
            "SERVICE_TITLE": title,
            "SERVICE_KEBAB": self.name,
            "SERVICE_SNAKE": self.name.replace("-", "_"),
            "SERVICE_CAMEL": "".join(word.capitalize() for word in self.name.split("-")),
            "SERVICE_FLAT": self.name.replace("-", ""),
            "SERVICE_SHORT_KEBAB": self.short,
            "SERVICE_SHORT": self.short.replace("-", "_"),
            "EXAMPLE_OF_A_CURSOR": _first_cursor(),
        }
        return dict(sorted(forms.items(), key=lambda form: -len(form[0])))


def replace_by_placeholders(text: str, path: str = "") -> str:
    """The text with words that stand for the forms of the service's name, and for words of others."""
    for place, pattern in _WORDS_OF_OTHERS:
        if re.fullmatch(place, path):
            text = re.sub(pattern, lambda found: found[0].replace("items", _WORD_OF_OTHERS), text)
    for old, new in _CURSOR:
        text = text.replace(old, new)
    for pattern, placeholder in _PLACES:
        text = re.sub(pattern, placeholder, text)
    return text


def replace_placeholders(text: str, name: ServiceName) -> str:
    """The text with the forms of this name."""
    for placeholder, form in name.forms().items():
        text = text.replace(placeholder, form)
    return text.replace(_WORD_OF_OTHERS, "items")


def _first_cursor() -> str:
    """The cursor after the first row, which the documentation shows, as app/http/cursors.py makes it."""
    position = (1).to_bytes(8, signed=True)
    check = hashlib.blake2s(position, digest_size=4, person=b"cursor").digest()
    return urlsafe_b64encode(position + check).decode()
