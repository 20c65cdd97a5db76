"""What orchestrators and the curious get."""

from typing import Literal

from pydantic import BaseModel, Field


class Index(BaseModel):
    """What this service is, and where to go on."""

    name: str
    version: str
    description: str
    links: dict[str, str]


class Health(BaseModel):
    """This process can answer."""

    status: Literal["ok"]


class Checks(BaseModel):
    """What was found. The values are codes; the details stand in the log."""

    database: str = Field(description="`ok`, or the code of what is wrong.")
    schema_state: str = Field(alias="schema", description="`behind`, `current`, `ahead` or `unknown`.")
    draining: bool = Field(description="Whether this worker is about to leave.")


class Readiness(BaseModel):
    """This worker should get requests."""

    status: Literal["ready"]
    checks: Checks
