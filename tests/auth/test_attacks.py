import json

from app.auth.claims import Rules
from app.auth.key_set import KeySet
from app.auth.refusal import Outcome, TokenRefusedError
from app.auth.tokens import verify
from tests.issuer.attacks import Attacker
from tests.issuer.tokens import AUDIENCE, make_key

ISSUER = "https://login.example.com/realms/shop"
RSA, EC = make_key("rsa", "RS256"), make_key("ec", "ES256")
KEYS = KeySet.parse(json.dumps({"keys": [RSA.jwk, EC.jwk]}).encode())


def attacker():
    """An attacker who makes tokens now: some are right or wrong for half a minute only."""
    return Attacker(ISSUER, RSA, EC, "http://127.0.0.1:1/keys")


def verified(token):
    """What a token says, for a service that knows both keys."""
    return verify(token.encode(), KEYS.find, Rules(issuer=ISSUER, audience=AUDIENCE))


def test_a_token_that_differs_in_an_allowed_way_is_accepted():
    """Its signature and its claims are good."""
    for name, token in attacker().controls():
        assert "samples:read" in verified(token).principal.scopes, name


def refusal(token):
    """Why the token is refused. None if it is accepted."""
    try:
        verified(token)
    except TokenRefusedError as error:
        return error
    return None


def test_a_forged_or_foreign_token_is_refused():
    """It is refused with a reason, never with another exception, and the reason has nothing of the token."""
    attacks = attacker().all()
    refused = {name: (token, error) for name, token in attacks if (error := refusal(token))}

    assert {name for name, _ in attacks} == refused.keys()
    for name, (token, error) in refused.items():
        assert error.outcome in set(Outcome) - {Outcome.ACCEPTED, Outcome.UNAVAILABLE}, name
        assert token not in error.reason, name
        assert error.reason.isprintable(), name
