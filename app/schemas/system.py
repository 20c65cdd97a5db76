"""The response bodies of the system routes."""

from typing import Literal

from pydantic import BaseModel, Field


class Index(BaseModel):
    """The name and version of this service, and links to its main routes."""

    name: str
    version: str
    description: str
    links: dict[str, str]


class Health(BaseModel):
    """This process responds."""

    status: Literal["ok"]


class Checks(BaseModel):
    """The result of each check. The values are codes; the details are in the log."""

    database: str = Field(
        description="`ok`, `read_only` where no write would succeed, the code of the error, "
        "`unchecked` before the first result, or `check_failed` because of a defect."
    )
    schema_state: str = Field(alias="schema", description="`behind`, `current`, `ahead` or `unknown`.")
    revision_found: str | None = Field(description="The revision of the database, null if none was found.")
    revision_needed: str | None = Field(description="The newest revision of this release.")
    auth_keys: str | None = Field(
        default=None,
        description="With authentication, `ok`, or `auth_unavailable` while access tokens cannot be verified.",
    )
    draining: bool = Field(description="Whether this worker is shutting down.")


class Readiness(BaseModel):
    """This worker should receive requests."""

    status: Literal["ready"]
    checks: Checks
