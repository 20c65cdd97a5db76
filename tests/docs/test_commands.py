"""The commands in the documents work, and print what the documents show."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from _pytest.mark import ParameterSet

from tests import programs
from tests.cluster import as_role
from tests.docs.documents import ANSWERS, COMMANDS, LEFT_OUT, PATCH, Block, blocks, documents
from tests.docs.shell import SERVED_AT, STARTED, reader
from tests.paths import ROOT
from tests.processes.server import Server

OWN_TESTS = {ROOT / "docs" / "operations" / "recovery.md": "test_recovery.py"}
"""Documents whose commands are run by a test that does more between them."""


def needs(commands: str) -> set[str]:
    """The programs that a document's commands call and that may be missing."""
    called = set(re.findall(r"[\w-]+", commands))
    return {"bash", *programs.KNOWN & called}


def with_commands() -> Iterator[ParameterSet]:
    """The documents whose commands are run, each with the programs that it needs."""
    for document in documents():
        commands = "".join(block.text for block in blocks(document) if block.kind == COMMANDS)
        if commands and document not in OWN_TESTS:
            marks = pytest.mark.needs(*sorted(needs(commands)))
            yield pytest.param(document, marks=marks, id=str(document.relative_to(ROOT)))


CHANGING = [
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), "(a time)"),
    (re.compile(r'"(\d+)-\d+(\\?")'), r'"\1-(a version)\2'),
    (re.compile(r"\b[0-9a-f]{24}\b"), "(a request id)"),
    (re.compile(r"(;t=)\d+"), r"\1(seconds)"),
]
"""What differs between runs. The rest of an answer must be equal to the document."""


def comparable(text: str) -> str:
    """The text with placeholders for what differs between runs."""
    for pattern, name in CHANGING:
        text = pattern.sub(name, text)
    return text


def assert_answers(block: Block, printed: str) -> None:
    """The output has the status, the headers and the body of the block. It may have more headers."""
    shown = block.text
    if block.kind == "json":
        assert json.loads(comparable(shown)) == json.loads(comparable(printed)), f"{block}: {printed}"
        return
    shown_head, _, shown_body = comparable(shown).partition("\n\n")
    head, _, body = comparable(printed.replace("\r\n", "\n")).partition("\n\n")
    assert json.loads(shown_body) == json.loads(body), f"{block}: {printed}"
    assert shown_head.splitlines()[0] == head.splitlines()[0], block
    assert set(shown_head.splitlines()) <= set(head.splitlines()), f"{block}: {printed}"


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_has_a_known_kind(document):
    """Each fenced block is run, compared, or of a kind that is listed as not run."""
    kinds = {block.kind for block in blocks(document)}

    assert kinds <= {COMMANDS, PATCH, *ANSWERS, *LEFT_OUT}


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_that_are_not_run_name_existing_files(document):
    """The project paths in `console` blocks exist."""
    for block in blocks(document):
        if block.kind == "console":
            for path in re.findall(r"(?<![\w./-])(?:deploy|migrations|app|docs)/[\w./-]*", block.text):
                assert (ROOT / path).exists(), f"{block}: {path}"


@pytest.mark.parametrize("document", list(with_commands()))
def test_the_commands_print_what_the_document_shows(document, database_url, tmp_path):
    """The commands of a document succeed in order, and print what the blocks after them show."""
    environment = {
        "DATABASE_URL": database_url,
        "MIGRATION_DATABASE_URL": as_role(database_url, "items_owner"),
        "ADMIN_DATABASE_URL": as_role(database_url, "postgres"),
        "BACKUPS": str(tmp_path),
        "SECRETS": str(tmp_path / "secrets"),
    }
    found = list(blocks(document))
    text = "".join(block.text for block in found if block.kind == COMMANDS)
    with ExitStack() as stack:
        shell = stack.enter_context(reader(environment))
        if SERVED_AT in text and STARTED not in text:
            server = stack.enter_context(Server(environment=environment | {"WEB_CONCURRENCY": "1"}))
            shell.port = server.serving().port
        printed = None
        for block in found:
            if block.kind == COMMANDS:
                printed = shell.run(block)
            elif block.kind in ANSWERS:
                assert printed is not None, f"{block}: there is no command before this answer"
                assert_answers(block, printed)
                printed = None
