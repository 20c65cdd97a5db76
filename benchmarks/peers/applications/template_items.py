"""The way of full-stack-fastapi-template: synchronous SQLModel sessions in a thread pool, Pydantic models in and out.

Written in its style: one session for each request, a model for each body, a count and a query for a list. It has
Uvicorn's access log, and neither a rate limit nor metrics. Its authentication is left out.
"""

import os
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException
from sqlalchemy import BigInteger, Column, DateTime, Numeric, func, text
from sqlmodel import Field, Session, SQLModel, create_engine, select

CONNECTIONS = 10

engine = create_engine(
    os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://", 1),
    pool_size=CONNECTIONS,
    max_overflow=0,
)


class ItemBase(SQLModel):
    """What all models of an item have."""

    name: str = Field(min_length=1, max_length=255)
    description: str | None = Field(default=None, max_length=10_000)
    price: float | None = Field(default=None, ge=0, le=9_999_999_999.99)
    is_active: bool = True


class ItemCreate(ItemBase):
    """A new item."""


class Item(ItemBase, table=True):
    """The table of items."""

    __tablename__ = "items"

    id: int | None = Field(default=None, sa_column=Column(BigInteger, primary_key=True))
    price: Decimal | None = Field(default=None, sa_column=Column(Numeric(12, 2)))
    created_at: datetime | None = Field(
        default=None, sa_column=Column(DateTime(timezone=True), server_default=text("now()"))
    )
    updated_at: datetime | None = Field(
        default=None, sa_column=Column(DateTime(timezone=True), server_default=text("now()"))
    )


class ItemPublic(ItemBase):
    """An item as clients see it."""

    id: int
    created_at: datetime
    updated_at: datetime


class ItemsPublic(SQLModel):
    """A page of items."""

    items: list[ItemPublic]
    page: int
    per_page: int
    total: int
    pages: int


def get_session() -> Iterator[Session]:
    """Open a session for one request."""
    with Session(engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session)]
router = APIRouter(prefix="/items", tags=["items"])


@router.get("", response_model=ItemsPublic)
def read_items(session: SessionDep, page: int = 1, per_page: int = 20) -> Any:
    """A page of items, and how many there are."""
    total = session.exec(select(func.count()).select_from(Item)).one()
    items = session.exec(select(Item).order_by(Item.id).offset((page - 1) * per_page).limit(per_page)).all()
    return ItemsPublic(items=items, page=page, per_page=per_page, total=total, pages=-(-total // per_page))


@router.get("/{item_id}", response_model=ItemPublic)
def read_item(session: SessionDep, item_id: int) -> Any:
    """One item."""
    item = session.get(Item, item_id)
    if not item:
        raise HTTPException(status_code=404, detail="Item not found")
    return item


@router.post("", response_model=ItemPublic, status_code=201)
def create_item(session: SessionDep, item_in: ItemCreate) -> Any:
    """Store a new item."""
    item = Item.model_validate(item_in)
    session.add(item)
    session.commit()
    session.refresh(item)
    return item


app = FastAPI()
app.include_router(router)
