"""Why a token is refused: an outcome for the metrics, and a reason for the log. The answer says neither."""

from enum import StrEnum


class Outcome(StrEnum):
    """What became of a request, as the metrics count it."""

    ACCEPTED = "accepted"
    MISSING = "missing"
    MALFORMED = "malformed"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    WRONG_ISSUER = "wrong_issuer"
    WRONG_AUDIENCE = "wrong_audience"
    UNKNOWN_KEY = "unknown_key"
    BAD_SIGNATURE = "bad_signature"
    BAD_CLAIMS = "bad_claims"
    INSUFFICIENT_SCOPE = "insufficient_scope"
    UNAVAILABLE = "unavailable"


class TokenRefusedError(Exception):
    """A token is not accepted."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason
        """In words, for an operator. It has nothing of a token whose signature is not verified."""
