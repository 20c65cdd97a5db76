"""The tables. Importing them all fills the metadata that migrations are compared with."""

from app.models.base import Base as Base
from app.models.idempotency_key import IdempotencyKeyRow as IdempotencyKeyRow
from app.models.item import ItemRow as ItemRow
