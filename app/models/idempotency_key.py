"""The table `idempotency_keys`: the first answer to each `Idempotency-Key`."""

from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, LargeBinary, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base


class IdempotencyKeyRow(Base):
    """A key and the first answer to it, kept for 24 hours."""

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(Text, primary_key=True)
    """The client's key, after the prefix of the resource."""

    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of the validated body."""

    answer: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """The resource as it was created."""

    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), index=True)
