"""Checks the OpenAPI document against the running application."""

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from fastapi import FastAPI
from schemathesis.config import (
    GenerationConfig,
    PhasesConfig,
    ProjectConfig,
    ProjectsConfig,
    SchemathesisConfig,
    StatefulPhaseConfig,
)
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.engine import events, from_schema
from schemathesis.openapi.checks import RejectedPositiveData, UseAfterFree
from schemathesis.python import asgi
from schemathesis.specs.openapi.definitions import OPENAPI_31

from app.settings import Settings
from tests.sample.app import create_app

EXAMPLES = 20


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    """The application with a database of its own."""
    return create_app(settings)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The document of a service with default settings."""
    return create_app(Settings.load(database_url="postgresql://a@b/c", _env_file=None)).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return each operation with its method and path."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_the_document_is_valid_openapi(document):
    """The document is valid OpenAPI 3.1."""
    assert document["openapi"].startswith("3.1.")
    assert [] == [error.message for error in jsonschema_rs.validator_for(OPENAPI_31).iter_errors(document)]


def test_every_schema_and_example_is_valid(document):
    """Every schema is JSON Schema 2020-12, and every example matches its schema."""
    seen = 0
    for name, schema in document["components"]["schemas"].items():
        whole = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        validator = jsonschema_rs.Draft202012Validator(whole)
        jsonschema_rs.meta.validate(schema)
        for example in [*schema.get("examples", []), *([schema["example"]] if "example" in schema else [])]:
            assert validator.is_valid(example), name
            seen += 1
    assert seen >= 3


def parts(document: Any) -> Iterator[dict[str, Any]]:
    """Return each object in the document."""
    for nested in document.values() if isinstance(document, dict) else document:
        if isinstance(nested, dict | list):
            yield from parts(nested)
    if isinstance(document, dict):
        yield document


def test_every_number_has_a_format(document):
    """Integers have 64 bits and other numbers are doubles: without a format, generators of clients take 32 bits."""
    formats = {"integer": "int64", "number": "double"}
    numbers = [part for part in parts(document) if part.get("type") == "integer" or part.get("type") == "number"]

    assert len(numbers) > 10
    assert all(formats[number["type"]] == number["format"] for number in numbers)


def test_no_schema_stops_a_generator(document):
    """The document has no `multipleOf`, which compares floats, and no schema of a body is a choice."""
    assert not [part for part in parts(document) if "multipleOf" in part]
    assert not [name for name, schema in document["components"]["schemas"].items() if {"anyOf", "oneOf"} & set(schema)]


def test_the_service_is_described(document):
    """The document names the licence, a contact and the server, and says that no authentication is needed."""
    assert {"name", "identifier"} == set(document["info"]["license"])
    assert document["info"]["contact"]["name"]
    assert [{"url": "/"}] == document["servers"]
    assert [] == document["security"]


def test_every_operation_documents_its_errors(document):
    """Each operation has a name and a summary, documents errors as problems, and the headers of all responses."""
    names = [operation["operationId"] for _, operation in operations(document)]
    assert len(names) == len(set(names)) >= 9
    for name, operation in operations(document):
        assert operation["summary"], name
        for status, response in operation["responses"].items():
            assert {"X-Request-ID", "Cache-Control"} <= set(response["headers"]), (name, status)
            assert response["description"], (name, status)
            if status == "default" or int(status) >= 400:
                assert {"application/problem+json"} == set(response["content"]), (name, status)


def test_the_example_of_an_invalid_field_names_a_part_that_can_be_so(document):
    """The message fits the field: a header has no number."""
    for name, operation in operations(document):
        if "422" in operation["responses"]:
            content = operation["responses"]["422"]["content"]["application/problem+json"]
            [error] = content["examples"]["invalid_request"]["value"]["errors"]
            parameters = operation.get("parameters", [])
            numbers = [found["name"] for found in parameters if found["schema"].get("type") == "integer"]
            texts = [found["name"] for found in parameters if "maxLength" in found["schema"]]
            assert error["field"] in (numbers or (["body"] if "requestBody" in operation else texts)), name


@pytest.mark.parametrize(
    ("operation", "statuses"),
    [
        ("POST /samples", {201, 400, 413, 415, 422, 429, 503, 504}),
        ("GET /samples", {200, 422, 429, 503, 504}),
        ("GET /samples/{sample_id}", {200, 304, 404, 422, 429, 503, 504}),
        ("PUT /samples/{sample_id}", {200, 400, 404, 412, 413, 415, 422, 429, 503, 504}),
        ("PATCH /samples/{sample_id}", {200, 400, 404, 412, 413, 415, 422, 429, 503, 504}),
        ("DELETE /samples/{sample_id}", {204, 404, 412, 422, 429, 503, 504}),
        ("GET /health", {200}),
        ("GET /health/ready", {200, 503}),
    ],
)
def test_exactly_the_possible_statuses_are_documented(document, operation, statuses):
    """An operation documents the statuses that it can respond with, and no others."""
    responses = dict(operations(document))[operation]["responses"]

    assert {str(status) for status in statuses} | {"default"} == set(responses)


async def test_a_parameter_that_may_be_empty_is_documented_so(document, client):
    """`allowEmptyValue` stands at exactly the flags and numbers that a list accepts without a value."""
    seen = set()
    for name, operation in operations(document):
        method, path = name.split()
        for parameter in operation.get("parameters", ()):
            if parameter["in"] != "query" or parameter["schema"].get("type") == "string" or "{" in path:
                continue
            response = await client.request(method, path, params={parameter["name"]: ""})
            may_be_empty = parameter.get("allowEmptyValue", False)
            assert may_be_empty == (response.status_code == 200), (name, parameter)
            seen.add(may_be_empty)
    assert {True, False} == seen


def test_disabled_rate_limits_are_not_documented(settings):
    """Without rate limits neither 429 nor the rate limit headers are documented."""
    operation = create_app(settings).openapi()["paths"]["/samples"]["get"]

    assert "429" not in operation["responses"]
    assert not any("RateLimit" in response["headers"] for response in operation["responses"].values())


def test_the_document_is_made_once(app):
    """A second call returns the same object."""
    assert app.openapi() is app.openapi()


def is_wrongly_refused(response) -> bool:
    """Return whether a request that the schema allows was refused without a reason that a schema cannot express."""
    body = response.json()
    if body["code"] in ("idempotency_key_reused", "precondition_failed"):
        return False  # the key was used before with another body; the row has another tag
    return body["code"] != "invalid_request" or not all(map(is_beyond_schemas, body["errors"]))


def is_beyond_schemas(error: dict[str, str]) -> bool:
    """Return whether this part of a request breaks a rule that a schema cannot express, or generators misunderstand."""
    if error["field"] in ("cursor", "page", "ids", "sort", "updated_after"):
        # `cursor` must be one that the service made, without `page`; the greatest `page` depends on `per_page`.
        # The greatest id is no matter of a pattern, and what goes with `sort` depends on its value.
        return True
    if "cannot be combined" in error["message"]:
        return True
    # Unknown fields are ignored, but an update of unknown fields alone changes nothing.
    messages = ("two decimals", "a visible character", "Send at least one field to change")
    return any(message in error["message"] for message in messages)


def failures(event: Any) -> Iterator[str]:
    """Return the failures that an event of the run contains."""
    if isinstance(event, events.NonFatalError):
        yield f"{event.label}: {event.value!r}"
    if isinstance(event, events.FatalError):
        yield repr(event.exception)
    if isinstance(event, events.ScenarioFinished):
        for case_id, checks in event.recorder.checks.items():
            for check in checks:
                if check.failure_info is not None:
                    case = event.recorder.cases[case_id].value
                    yield f"{check.name}: {case.as_curl_command()}\n{check.failure_info.failure}"


@pytest.mark.filterwarnings("default")  # warnings of the tool and its libraries are not about this project
def test_the_application_conforms_to_the_document(app):
    """Generated requests, valid and invalid, are answered as the document says, in any order of operations."""
    generation = GenerationConfig(max_examples=EXAMPLES, deterministic=True, database="none")
    stateful = StatefulPhaseConfig(generation=GenerationConfig(max_examples=60, deterministic=True, database="none"))
    project = ProjectConfig(generation=generation, phases=PhasesConfig(stateful=stateful), continue_on_failure=True)
    config = SchemathesisConfig(seed=1, projects=ProjectsConfig(default=project))
    deleted: set[str] = set()
    try:
        schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=config)

        @schema.hook("after_call")
        def remember(_context, case, response) -> None:
            if case.method == "DELETE" and str((case.query or {}).get("permanent")).lower() == "true":
                deleted.update({case.formatted_path} if response.status_code == 204 else ())

        @schema.hook("filter_failure")
        def is_failure(_context, failure, _case, response) -> bool:
            if isinstance(failure, UseAfterFree):  # an item that is only deactivated can still be read
                return failure.free.removeprefix("DELETE ") in deleted
            if isinstance(failure, AcceptedNegativeData):
                # An unknown query parameter is ignored. OpenAPI has no way to say so.
                return "in query - violates `additionalProperties`" not in failure.message
            return not isinstance(failure, RejectedPositiveData) or is_wrongly_refused(response)

        run = list(from_schema(schema).execute())
    finally:
        asgi.shutdown_lifespans()

    failed = dict.fromkeys(failure for event in run for failure in failures(event))
    scenarios = [event for event in run if isinstance(event, events.ScenarioFinished)]
    cases = sum(len(scenario.recorder.interactions) for scenario in scenarios)
    phases = {scenario.phase.name for scenario in scenarios if scenario.recorder.interactions}

    assert not failed, f"{len(failed)} failures\n\n" + "\n\n".join(list(failed)[:20])
    assert cases > 600
    assert deleted
    assert {"EXAMPLES", "COVERAGE", "FUZZING", "STATEFUL_TESTING"} <= phases
