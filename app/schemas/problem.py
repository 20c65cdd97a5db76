"""The body of every error response."""

from pydantic import BaseModel, ConfigDict, Field


class FieldProblem(BaseModel):
    """One invalid part of the request."""

    field: str = Field(description="The invalid part, for example `name`, `page` or `Idempotency-Key`.")
    message: str


class Problem(BaseModel):
    """Problem details (RFC 9457). Some kinds of error have further members."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="The kind of error, for programs. Codes do not change between versions.")
    request_id: str
    errors: list[FieldProblem] | None = Field(default=None, description="The invalid parts. Only with status 422.")
