"""The tables. All are imported here, so that migrations are compared with all of them."""

from app.models.base import Base as Base
from app.models.idempotency_key import IdempotencyKeyRow as IdempotencyKeyRow
from app.models.item import ItemRow as ItemRow
