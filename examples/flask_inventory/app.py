"""An inventory over HTTP, with Flask-SQLAlchemy: its `db.session` stores articles and their events together.

Run it from the folder `examples`, with a SQLite file or with any PostgreSQL database:

    flask --app flask_inventory.app run
    DATABASE_URL=postgresql+psycopg://user@localhost/shop flask --app flask_inventory.app run

    curl -X POST localhost:5000/articles/bolts/deliveries -H 'content-type: application/json' -d '{"pieces": 500}'
    curl -X POST localhost:5000/articles/bolts/shipments -H 'content-type: application/json' -d '{"pieces": 120}'
    curl localhost:5000/articles/bolts
"""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, current_app, request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from eventstore_sa import (
    EventStoreSchema,
    NewEvent,
    Projector,
    StoredEvent,
    StreamIdentifier,
    SyncEventStore,
    configure_sqlite,
    exists_row,
)
from eventstore_sa.errors import UnmetWriteConditionError


class Base(DeclarativeBase):
    """The base of the application's mapped classes."""


db = SQLAlchemy(model_class=Base)


class Article(Base):  # or db.Model, which type checkers cannot follow
    __tablename__ = "articles"
    sku: Mapped[str] = mapped_column(primary_key=True)
    stock: Mapped[int] = mapped_column(default=0)


SCHEMA = EventStoreSchema(Base.metadata)


class StockProjector(Projector[StreamIdentifier, int, None]):
    """The stock according to the events."""

    def initial_state_factory(self) -> int:
        return 0

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: int, source: StreamIdentifier) -> str:
        return source.stream

    def delivered(self, state: int, event: StoredEvent[str, dict[str, int]]) -> int:
        return state + event.payload["pieces"]

    def shipped(self, state: int, event: StoredEvent[str, dict[str, int]]) -> int:
        return state - event.payload["pieces"]


def store() -> SyncEventStore:
    made: SyncEventStore = current_app.extensions["event-store"]
    return made


def deliver(sku: str) -> tuple[dict[str, Any], int]:
    pieces = int(request.get_json()["pieces"])
    article = db.session.get(Article, sku, with_for_update=True)
    if article is None:
        article = Article(sku=sku, stock=0)
        db.session.add(article)
    article.stock += pieces
    stream = store().within(db.session).stream(category="articles", stream=sku)
    stream.stage(events=[NewEvent(name="delivered", payload={"pieces": pieces})])
    db.session.commit()
    return {"sku": sku, "stock": article.stock}, 201


def ship(sku: str) -> tuple[dict[str, Any], int]:
    pieces = int(request.get_json()["pieces"])
    stream = store().within(db.session).stream(category="articles", stream=sku)
    # Checked while the row is locked; the row stays locked until the commit.
    enough = exists_row(select(Article).where(Article.sku == sku, Article.stock >= pieces))
    stream.publish(events=[NewEvent(name="shipped", payload={"pieces": pieces})], condition=enough)
    article = db.session.get_one(Article, sku)
    article.stock -= pieces
    db.session.commit()
    return {"sku": sku, "stock": article.stock}, 201


def show(sku: str) -> dict[str, Any]:
    article = db.get_or_404(Article, sku)
    events = store().stream(category="articles", stream=sku)
    return {
        "sku": sku,
        "stock": article.stock,
        "stock_by_events": StockProjector().project_sync(source=events).state,
        "history": [[event.name, event.payload["pieces"]] for event in events],
    }


def refuse(error: UnmetWriteConditionError) -> tuple[dict[str, str], int]:
    return {"error": str(error)}, 409


def create_app(url: str | None = None) -> Flask:
    """Create the application, connected to a database."""
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = url or os.environ.get("DATABASE_URL", "sqlite:///inventory.db")
    db.init_app(app)
    with app.app_context():
        configure_sqlite(db.engine)  # gives SQLite real transactions; no effect on other databases
        db.create_all()
        app.extensions["event-store"] = SyncEventStore(db.engine, schema=SCHEMA)
    app.add_url_rule("/articles/<sku>/deliveries", view_func=deliver, methods=["POST"])
    app.add_url_rule("/articles/<sku>/shipments", view_func=ship, methods=["POST"])
    app.add_url_rule("/articles/<sku>", view_func=show)
    app.register_error_handler(UnmetWriteConditionError, refuse)
    return app
