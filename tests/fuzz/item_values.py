"""Random JSON values, texts, queries and headers, valid and not."""

import json
from random import Random
from urllib.parse import quote

MARKER = "m4rk3r"
"""A part of most hostile texts. No error may repeat it."""

_TEXTS = (
    "", " ", "\0", f"{MARKER}\0", "\x1b[31m", "\r\nX-Evil: 1", "\ufeff", "\uffff", "\u202e", "e\u0301", "İı", "ﬀ",
    "ß", "ς", "\u2060", "\u200b", "🫖" * 300, MARKER * 200, MARKER * 2_000, "<script>", "../../etc/passwd", "%", "_",
    "\\", "100\\", "%00", "NaN", "null", "1_000", "+1", "\u0661", "' OR 1=1 --", "'; DROP TABLE items; --", '"',
    "$1", "%s", ":name", "{0}", "E'\\x00'", "$$", "a b", "a" * 255, "a" * 256, "é" * 255, "\ud7ff", "\U0010ffff",
    "\u0130" * 100,
)  # fmt: skip
_NUMBERS = (
    0, -1, -0.0, 1, 0.001, 0.01, 1e-320, 1e308, 9_999_999_999.99, 10_000_000_000, 2**53 + 1, 2**63 - 1, 2**63,
    2**64, 10**30,
)  # fmt: skip
_RAW = (
    b"", b"\0", b"{", b"[]", b"{}", b"null", b"NaN", b'{"name": NaN}', b'{"name": "a", "price": Infinity}',
    b'\xef\xbb\xbf{"name": "a"}', b'{"name": "\xff"}', b'{"name": "\\ud800"}', b'{"name": "a"}{"name": "b"}',
    b"[" * 30_000, b'{"a":' * 8_000, b'{"name": "a", "name": null}', b'{"name": 1e999}',
    b'{"price": ' + b"9" * 5_000 + b"}", b'{"name": "a",}', b"name=a", '{"name": "a"}'.encode("utf-16"),
)  # fmt: skip
_FIELDS = ("name", "description", "price", "is_active")
_LETTERS = "abcdefghij KLM äöé漢字"


def text(choose: Random) -> str:
    """A hostile text."""
    if choose.random() < 0.6:
        return choose.choice(_TEXTS)
    return "".join(
        chr(number) if not 0xD800 <= number < 0xE000 else "x"
        for number in (choose.randrange(choose.choice((0x80, 0x3000, 0x110000))) for _ in range(choose.randrange(12)))
    )


def word(choose: Random) -> str:
    """A valid name."""
    return "n" + "".join(choose.choices(_LETTERS, k=choose.randint(1, 30))) + "n"


def value(choose: Random, depth: int = 0) -> object:
    """Any JSON value."""
    kind = choose.randrange(8 if depth < 4 else 6)
    if kind < 2:
        return text(choose)
    if kind < 4:
        return choose.choice(_NUMBERS)
    if kind < 6:
        return choose.choice((None, True, False))
    if kind == 6:
        return [value(choose, depth + 1) for _ in range(choose.randrange(4))]
    return {text(choose): value(choose, depth + 1) for _ in range(choose.randrange(4))}


def valid_item(choose: Random) -> dict[str, object]:
    """The content of an item that every write accepts."""
    return {
        "name": word(choose),
        "description": choose.choice((None, word(choose), word(choose) * 50)),
        "price": choose.choice((None, 0, 1.5, 9_999_999_999.99, choose.randrange(10**6) / 100)),
        "is_active": choose.random() < 0.8,
    }


def body(choose: Random) -> bytes:
    """A body that is probably refused."""
    if choose.random() < 0.3:
        return choose.choice(_RAW)
    item = valid_item(choose)
    for _ in range(choose.randint(1, 3)):
        item[choose.choice((*_FIELDS, *_FIELDS, text(choose), MARKER))] = value(choose)
    return json.dumps(item).encode()


def query(choose: Random, cursors: list[str], tags: list[str]) -> str:
    """The query of a list: parameters of which most are valid."""
    pairs = []
    for _ in range(choose.choice((0, 1, 1, 2, 3))):
        name = choose.choice((*_PARAMETERS, "cursor", MARKER))
        pairs.append((name, choose.choice(_PARAMETERS.get(name, ("",))) if choose.random() < 0.7 else text(choose)))
    if cursors and choose.random() < 0.3:
        cursor = choose.choice(cursors)
        if choose.random() < 0.3:
            place = choose.randrange(len(cursor))
            cursor = cursor[:place] + choose.choice("Aa_-=0\0é") + cursor[place + 1 :]
        pairs.append(("cursor", cursor))
    if choose.random() < 0.05:
        return choose.choice(
            ("%FF", "q=%C0%AF", "q=%", "q=%zz", "&" * 200, ";", "page=1&page=2", "q=a&q=b", "=" * 50, "?")
        )
    return "&".join(f"{name}={quote(chosen, safe='')}" for name, chosen in pairs)


_PARAMETERS = {
    "page": ("1", "2", "100", "0", "-1", "1_0", "99999999999999999999", "101"),
    "per_page": ("1", "5", "20", "100", "101", "0"),
    "is_active": ("true", "false", "", "1", "TRUE"),
    "q": ("a", "ab", "n", "abc", "N", "ä", "漢", "%", "_", "\\", "a b", " ", "nn"),
    "count": ("exact", "", "all"),
    "permanent": ("true", "false"),
    "ids": (
        "1",
        "1,2,3",
        "3,1,9",
        "1,1",
        "",
        ",",
        "0",
        "-1",
        "1 ,2",
        "99999999999999999999",
        ",".join(map(str, range(101))),
    ),
    "sort": ("id", "-id", "-id", "updated_at", "updated_at", "-updated_at", "", "name", "id,-id"),
    "updated_after": (
        "2026-01-01T00:00:00Z",
        "2026-01-01",
        "infinity",
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00+14:00",
    ),
}


def tag_list(choose: Random, tags: list[str]) -> str:
    """The value of If-Match or If-None-Match."""
    if tags and choose.random() < 0.8:
        return choose.choice(tags)
    if tags and choose.random() < 0.5:
        return ", ".join(choose.choices(tags, k=3))
    return choose.choice(
        ("*", '""', '"a"', 'W/"a"', "a", '"', '"a', ",,,", '"1-1"', '"-"', "*, *", '"9' + "9" * 300 + '"')
    )
