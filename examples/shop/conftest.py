"""An empty shop for each test, on SQLite, or in a database for tests that TEST_DATABASE_URL names."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from tempfile import mkdtemp

import httpx
import pytest

os.environ["DATABASE_URL"] = os.environ.get("TEST_DATABASE_URL", f"sqlite+aiosqlite:///{mkdtemp()}/test.db")

from shop.app import app
from shop.database import Base, engine


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://shop") as client,
    ):
        yield client
