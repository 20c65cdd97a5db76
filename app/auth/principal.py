"""Who sends a request, as a verified token says."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The subject and the client of a verified access token, and what they may do."""

    subject: str | None
    """`sub` of the token: a user, or a client that acts for itself. At most 255 printable characters."""

    client_id: str | None
    """`client_id` or `azp` of the token: the application that got it. At most 255 printable characters."""

    scopes: frozenset[str]
    """What the token allows, such as `items:read`."""

    key: str
    """Names the subject of this issuer; a token without a subject, its client. It is short, has no space, and is never
    the text of an address. Rate limits, database connections and Idempotency-Keys belong to it."""

    log_fields: dict[str, str | float | bool | None]
    """What the log line of a request says about it."""

    @classmethod
    def of(cls, *, issuer: str, subject: str | None, client_id: str | None, scopes: frozenset[str]) -> Self:
        """Return the principal with these claims. One of `subject` and `client_id` is not None."""
        identity = f"{issuer}\0sub\0{subject}" if subject is not None else f"{issuer}\0client_id\0{client_id}"
        known = {"subject": subject, "client_id": client_id}
        return cls(
            subject=subject,
            client_id=client_id,
            scopes=scopes,
            key=f"subject-{blake2b(identity.encode(), digest_size=16).hexdigest()}",
            log_fields={name: value for name, value in known.items() if value is not None},
        )
