"""The tables. Importing them all fills the metadata that migrations are compared with."""

from app.models.base import Base as Base
from app.models.item import ItemRow as ItemRow
