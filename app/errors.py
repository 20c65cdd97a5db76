"""The named errors: why a request is refused, and why the process does not start."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, ClassVar, Final

CLIENT_SHARE: Final = "client_share"
"""The code by which the metrics count a request that was refused because of its client's own share."""

_IN_DOUBT = "The write may or may not have been applied; a POST that had an Idempotency-Key can be repeated with it."


class StartupError(Exception):
    """The process cannot start with its settings. The message says what to change."""


class RequestError(Exception):
    """A request is refused. The class has the code and the status, the instance the details."""

    code: str
    status: HTTPStatus
    retry_after_seconds: int | None = None
    """How long a client should wait before it retries; None where a retry cannot help."""
    field: ClassVar[str] = "body"
    """With status 422: the part of the request that is wrong, if no single field of the body is."""

    @property
    def failure_code(self) -> str:
        """The code by which the metrics count the failure."""
        return self.code

    @property
    def headers(self) -> dict[str, str]:
        """The headers that the answer has because of this error."""
        return {} if self.retry_after_seconds is None else {"Retry-After": str(self.retry_after_seconds)}

    @property
    def members(self) -> Mapping[str, Any]:
        """The members of the body besides those that all problems have. With status 422 they say what is wrong."""
        if self.status != HTTPStatus.UNPROCESSABLE_ENTITY:
            return {}
        return {"errors": [{"field": self.field, "message": str(self)}]}


_REFUSALS = {
    HTTPStatus.BAD_REQUEST: ("malformed_request", "The request is malformed or was not sent completely."),
    HTTPStatus.REQUEST_TIMEOUT: ("request_timeout", "The request did not arrive completely in time."),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ("body_too_large", "The request sends too much besides its body."),
    HTTPStatus.REQUEST_URI_TOO_LONG: ("target_too_long", "The request target is too long."),
    HTTPStatus.TOO_MANY_REQUESTS: ("too_many_pipelined", "Too many requests wait on this connection."),
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: ("head_too_large", "The head of the request is too large."),
    HTTPStatus.SERVICE_UNAVAILABLE: ("too_many_connections", "The server has too many connections. Try again later."),
    HTTPStatus.HTTP_VERSION_NOT_SUPPORTED: ("http_version_unsupported", "Send the request over HTTP/1.1."),
}


class RequestRefusedError(RequestError):
    """The server refuses the request, because it is malformed, too large or too slow. The connection closes."""

    def __init__(self, status: HTTPStatus) -> None:
        code, detail = _REFUSALS[status]
        super().__init__(detail)
        self.status = status
        self.code = code
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.retry_after_seconds = 1


class NotFoundError(RequestError):
    """No route has this path."""

    code = "not_found"
    status = HTTPStatus.NOT_FOUND

    def __init__(self) -> None:
        super().__init__("No such path.")


class MethodNotAllowedError(RequestError):
    """The path exists, and does not allow this method."""

    code = "method_not_allowed"
    status = HTTPStatus.METHOD_NOT_ALLOWED

    def __init__(self, allowed: Iterable[str]) -> None:
        self.allowed = ", ".join(sorted(allowed))
        super().__init__(f"Allowed methods: {self.allowed}.")

    @property
    def headers(self) -> dict[str, str]:
        """`Allow`, with every method of this path."""
        return {"Allow": self.allowed}


class AuthenticationRequiredError(RequestError):
    """The request has no bearer token."""

    code = "authentication_required"
    status = HTTPStatus.UNAUTHORIZED

    def __init__(self) -> None:
        super().__init__("Send an access token in one header `Authorization: Bearer …`.")

    @property
    def headers(self) -> dict[str, str]:
        """The scheme, which a 401 must name (RFC 6750)."""
        return {"WWW-Authenticate": "Bearer"}


class InvalidTokenError(RequestError):
    """The access token is malformed, has expired, or is not one for this service."""

    code = "invalid_token"
    status = HTTPStatus.UNAUTHORIZED

    def __init__(self) -> None:
        super().__init__("The access token is malformed, has expired, or is not one for this service. Get a new one.")

    @property
    def headers(self) -> dict[str, str]:
        """The scheme and the error (RFC 6750). Why the token is refused is in the log only."""
        return {"WWW-Authenticate": f'Bearer error="{self.code}", error_description="The access token is not valid."'}


class InsufficientScopeError(RequestError):
    """The access token does not have a scope that this operation needs."""

    code = "insufficient_scope"
    status = HTTPStatus.FORBIDDEN

    def __init__(self, scopes: Iterable[str]) -> None:
        self.scope = " ".join(sorted(scopes))
        super().__init__(f"The access token needs the scope {self.scope}.")

    @property
    def headers(self) -> dict[str, str]:
        """The scheme, the error, and the scopes that are needed (RFC 6750)."""
        return {"WWW-Authenticate": f'Bearer error="{self.code}", scope="{self.scope}"'}


class AuthUnavailableError(RequestError):
    """The keys of the issuer are not known, so no access token can be verified."""

    code = "auth_unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after_seconds = 5

    def __init__(self) -> None:
        super().__init__("Access tokens cannot be verified at the moment. Try again later.")


class ItemNotFoundError(RequestError):
    """No item has the given id."""

    code = "item_not_found"
    status = HTTPStatus.NOT_FOUND

    def __init__(self, item_id: int) -> None:
        super().__init__(f"No item has the id {item_id}.")


class PreconditionFailedError(RequestError):
    """The resource has changed since the client read it."""

    code = "precondition_failed"
    status = HTTPStatus.PRECONDITION_FAILED

    def __init__(self, resource: str, resource_id: int) -> None:
        super().__init__(
            f"{resource.capitalize()} {resource_id} does not match If-Match: it has changed since, or the header is "
            "malformed or not its ETag. Read it again, then repeat the change."
        )


class MalformedPathError(RequestError):
    """The request target is not a path, or is not UTF-8."""

    code = "malformed_path"
    status = HTTPStatus.BAD_REQUEST

    def __init__(self) -> None:
        super().__init__("The request target must be a path that is UTF-8 after percent-decoding.")

    @property
    def headers(self) -> dict[str, str]:
        """Close the connection: a proxy may read such a target, and the bytes after it, in another way."""
        return {"Connection": "close"}


class HostError(RequestError):
    """The Host header is missing, doubled, or names a host that is not served here."""

    code = "bad_host"
    status = HTTPStatus.BAD_REQUEST


class PreflightRefusedError(RequestError):
    """A page of another origin may not send what it asks for."""

    code = "preflight_refused"
    status = HTTPStatus.BAD_REQUEST

    def __init__(self) -> None:
        super().__init__("This origin, or this method or header of a cross-origin request, is not allowed here.")

    @property
    def headers(self) -> dict[str, str]:
        """`Vary`, because another origin may be allowed."""
        return {"Vary": "Origin"}


class MalformedBodyError(RequestError):
    """The body is not one JSON document in UTF-8."""

    code = "malformed_body"
    status = HTTPStatus.BAD_REQUEST

    def __init__(self) -> None:
        super().__init__("The body must be one JSON document in UTF-8, without NaN, Infinity or lone surrogates.")


class BodyTooLargeError(RequestError):
    """The body is longer than this server takes."""

    code = "body_too_large"
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"A body may have at most {limit_bytes} bytes.")


class UnsupportedMediaTypeError(RequestError):
    """The content type of the body is not the documented one, or the body is compressed."""

    code = "unsupported_media_type"
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE

    def __init__(self, media_types: Iterable[str] = ("application/json",)) -> None:
        super().__init__(f"Send the body as {' or '.join(media_types)}, in UTF-8 and without a Content-Encoding.")


class InvalidFieldError(RequestError):
    """One part of the request is not as documented."""

    code = "invalid_request"
    status = HTTPStatus.UNPROCESSABLE_ENTITY

    def __init__(self, field: str, message: str) -> None:
        super().__init__("Validation failed; `errors` lists the invalid fields.")
        self.errors = [{"field": field, "message": message}]

    @property
    def members(self) -> Mapping[str, Any]:
        """The parts, and what is wrong with each."""
        return {"errors": self.errors}


class SearchTooBroadError(RequestError):
    """A search reads more items or index entries than it may, before it has found the page."""

    code = "search_too_broad"
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    field = "q"

    def __init__(self) -> None:
        super().__init__(
            "This search would read too many items. Add letters or a rarer word to `q`, or ask for a smaller "
            "`per_page`. With `page`, read on with `cursor` instead."
        )


class PageTooLargeError(RequestError):
    """The entries of a numbered page are larger than an answer may be."""

    code = "page_too_large"
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    field = "per_page"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"The entries of this page have more than {limit_bytes:,} bytes. "
            "Ask for a smaller `per_page`, or use `cursor`."
        )


class IdempotencyKeyReusedError(RequestError):
    """The key was first sent with another body."""

    code = "idempotency_key_reused"
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    field = "Idempotency-Key"

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was first sent with another body. Take a new key for another body.")


class UnstorableTextError(RequestError):
    """A text has a character that the database's encoding lacks."""

    code = "unstorable_text"
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    field = "request"

    def __init__(self) -> None:
        super().__init__("The request has a character that the database cannot store.")


class ConstraintViolatedError(RequestError):
    """A row breaks a constraint, or a trigger refuses it. Neither the answer nor the log has values of the row."""

    code = "constraint_violated"
    status = HTTPStatus.CONFLICT
    detail: ClassVar[str] = "The change breaks a rule of the database."

    def __init__(self, constraint: str | None) -> None:
        super().__init__(self.detail)
        self.constraint = constraint
        """The constraint's name in the database; None where the rule has no name, as NOT NULL has not."""


class UniqueViolatedError(ConstraintViolatedError):
    """Another row has the same value where values must be unique."""

    code = "unique_violated"
    detail = "There is already an entry with the same value where values must be unique."


class ExclusionViolatedError(ConstraintViolatedError):
    """Another row conflicts with this one."""

    code = "exclusion_violated"
    detail = "There is already an entry that conflicts with this one."


class ReferenceInUseError(ConstraintViolatedError):
    """Other rows refer to the row that should be deleted or changed."""

    code = "reference_in_use"
    detail = "Other entries refer to this one."


class ReferenceMissingError(ConstraintViolatedError):
    """The row refers to a row that does not exist."""

    code = "reference_missing"
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    detail = "The request refers to an entry that does not exist."


class CheckViolatedError(ConstraintViolatedError):
    """A value breaks a CHECK constraint, or is too large for its column or index."""

    code = "check_violated"
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    detail = "A value is outside of what the database allows."


class NotNullViolatedError(ConstraintViolatedError):
    """A value is missing where the database wants one."""

    code = "not_null_violated"
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    detail = "A value is missing."


class DatabaseUnavailableError(RequestError):
    """The database cannot be reached, or refuses to write."""

    code = "database_unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after_seconds = 1

    def __init__(self, *, write_in_doubt: bool = False) -> None:
        super().__init__(
            f"The database cannot be reached at the moment. {_IN_DOUBT if write_in_doubt else 'Try again.'}"
        )


class DatabaseReadOnlyError(DatabaseUnavailableError):
    """The database can be reached, and takes no writes: its server is a standby, or read-only."""


class SchemaOutdatedError(RequestError):
    """The database lacks a migration that this code needs."""

    code = "schema_outdated"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after_seconds = 5

    def __init__(self) -> None:
        super().__init__("The database has not been migrated to this version yet. Try again later.")


class DatabasePermissionDeniedError(RequestError):
    """The service's role lacks a privilege in the database. Only an operator can change that."""

    code = "database_permission_denied"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after_seconds = 5

    def __init__(self) -> None:
        super().__init__("The service lacks a permission in the database. Try again later.")


class DatabaseSetupError(RequestError):
    """The database is not set up as the settings say, so nothing is run on it."""

    code = "database_misconfigured"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after_seconds = 5

    def __init__(self, problem: str) -> None:
        super().__init__("The service is not set up for its database. Its log says what the operator must change.")
        self.problem = problem
        """What is wrong, and what to write, for the log."""


class DatabaseRefusedError(RequestError):
    """The database refused a statement for a reason that this service does not know."""

    code = "database_refused"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after_seconds = 5

    def __init__(self) -> None:
        super().__init__("The database refused the request for a reason that this service does not know.")


class PoolExhaustedError(RequestError):
    """No database connection came free in time."""

    code = "pool_exhausted"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after_seconds = 1
    detail: ClassVar[str] = "No database connection came free in time. Try again."

    def __init__(self, *, by_own_share: bool = False) -> None:
        """Refuse a request.

        Args:
            by_own_share: Whether it is refused because its client sends more than its share, and others are served.
                This is not counted as a failure of the service.
        """
        super().__init__(self.detail)
        self.by_own_share = by_own_share

    @property
    def failure_code(self) -> str:
        """`client_share` for a refusal because of the client's own share, whatever the code in the answer."""
        return CLIENT_SHARE if self.by_own_share else self.code


class OverloadedError(PoolExhaustedError):
    """Too many requests wait for a database connection already."""

    code = "overloaded"
    detail = "This service has more requests than it can serve at the moment. Try again later."


class SlowRequestsBusyError(OverloadedError):
    """Too many searches, exact counts and exports run or wait already. Other requests are served."""

    code = "slow_requests_busy"
    detail = (
        "Too many searches, exact counts and exports run at the moment. Try again later; other requests are served."
    )


class StreamsBusyError(OverloadedError):
    """Too many exports run already, of this client or in total. Other requests are served."""

    code = "streams_busy"
    retry_after_seconds = 5
    detail = "Too many exports run at the moment. Try again later; other requests are served."


class ShuttingDownError(RequestError):
    """The worker shuts down, and the request has not ended within GRACEFUL_SECONDS."""

    code = "shutting_down"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after_seconds = 1

    def __init__(self, *, write_in_doubt: bool = False) -> None:
        advice = _IN_DOUBT if write_in_doubt else "Try again."
        super().__init__(f"The server has shut down before it could finish this request. {advice}")


class StatementTimeoutError(RequestError):
    """The database did not finish the statement within its time."""

    code = "statement_timeout"
    status = HTTPStatus.GATEWAY_TIMEOUT

    def __init__(self, *, write_in_doubt: bool = False) -> None:
        in_doubt = f" {_IN_DOUBT}" if write_in_doubt else ""
        super().__init__(f"The database did not answer within the time that a statement may take.{in_doubt}")


class SlowStatementTimeoutError(StatementTimeoutError):
    """A search, an exact count or a part of an export ran past its time, which is shorter than that of others."""

    def __init__(self, seconds: float) -> None:
        RequestError.__init__(
            self,
            f"A search, an exact count or a part of an export may take {seconds:g} s in the database, and this one "
            "took longer. Search for a longer text, or leave out count=exact.",
        )


class NotReadyError(RequestError):
    """This worker should not get requests at the moment."""

    code = "not_ready"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after_seconds = 1

    def __init__(self, checks: Mapping[str, Any]) -> None:
        super().__init__("This worker should not get requests at the moment; `checks` says why.")
        self.checks = checks

    @property
    def members(self) -> Mapping[str, Any]:
        """Each check and what it found."""
        return {"checks": self.checks}


class RateLimitedError(RequestError):
    """The client has sent as many requests as it may."""

    code = "rate_limited"
    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__(f"Too many requests. Try again in {retry_after_seconds} s.")
        self.retry_after_seconds = retry_after_seconds


class QuotaTooSmallError(RequestError):
    """The request counts as more requests than the client may ever send in the time of its quota."""

    code = "quota_too_small"
    status = HTTPStatus.UNPROCESSABLE_ENTITY

    def __init__(self, cost: int, quota: str) -> None:
        super().__init__(
            f"This request counts as {cost} requests, and a client may send {quota}. Send fewer entries in one request."
        )


def root_cause(error: BaseException) -> str | None:
    """What happened, for the log: the driver's own message beneath a named error, which has no values of rows."""
    if isinstance(error, DatabaseSetupError):
        return error.problem
    if error.__cause__ is None:
        return None
    return root_cause(error.__cause__) or f"{type(error.__cause__).__qualname__}: {error.__cause__}"
