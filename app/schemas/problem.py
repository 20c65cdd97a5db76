"""How a failure looks to a client."""

from pydantic import BaseModel, Field


class FieldProblem(BaseModel):
    """What is wrong with one part of the request."""

    field: str = Field(description="The part, for example `name`, `page` or `Idempotency-Key`.")
    message: str


class Problem(BaseModel):
    """Problem details as in RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="What happened, for programs. It does not change between versions.")
    request_id: str
    errors: list[FieldProblem] | None = Field(default=None, description="Only with status 422.")
