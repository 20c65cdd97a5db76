"""What belongs to a client with a token, on a real server."""

import json

import pytest

from tests.issuer.server import issuer
from tests.issuer.tokens import make_key
from tests.processes.authenticated import ask, authenticated, bearer, code, post, token, wait_until_ready

pytestmark = pytest.mark.slow

KEY = make_key("key", "EdDSA")


def test_keys_and_limits_belong_to_a_subject(database_url):
    """Two subjects with one Idempotency-Key make two samples, and one that has used up its limit stops no other.

    All of them have one address. Each request has a new token, and goes to either worker.
    """
    settings = {"RATE_LIMIT_READ": "5/hour", "RATE_LIMIT_WRITE": "1000/hour"}
    with issuer([KEY.jwk]) as trusted, authenticated(database_url, trusted, workers=2, **settings) as server:
        server.serving(workers=2)
        wait_until_ready(server)

        def as_subject(subject, **claims):
            return bearer(token(trusted, KEY, sub=subject, **claims))

        for key in ("a-key", "k" * 255, "subject-a-key"):
            same = ("Idempotency-Key", key)
            made = [post(server, "one", as_subject(subject), same) for subject in ("a", "b", "a", "b", "A")]
            assert [201] * 5 == [answer.status for answer in made]
            first, second, first_again, second_again, third = (json.loads(answer.body)["id"] for answer in made)
            assert (first, second) == (first_again, second_again)
            assert 3 == len({first, second, third})
            replayed = [answer.headers.get("idempotency-replayed") for answer in made]
            assert [None, None, "true", "true", None] == replayed
            other = post(server, "another", as_subject("a"), same)
            assert 422 == other.status
            by_client = [post(server, "one", as_subject(None, client_id="a"), same) for _ in range(2)]
            assert [None, "true"] == [answer.headers.get("idempotency-replayed") for answer in by_client]
            assert json.loads(by_client[0].body)["id"] not in {first, second, third}

        assert [200] * 5 + [429] * 2 == [ask(server, (as_subject("a"),)).status for _ in range(7)]
        assert 200 == ask(server, (as_subject("b"),)).status
        assert 200 == ask(server, (as_subject("127.0.0.1"),)).status
        assert (403, "insufficient_scope") == code(ask(server, (as_subject("c", scope="samples:write"),)))
        assert 0 == server.stop()
        output = server.output()

    served = [json.loads(line) for line in output.splitlines() if '"request_served"' in line]
    assert {"a", "b", "A", "c", "127.0.0.1"} == {line["subject"] for line in served if "subject" in line}
    assert "client-1" in {line.get("client_id") for line in served}
