"""The event browser in a real Chromium: every kind of page, the live tail, the keyboard, a small screen, and axe.

The server is the one of `eventstore-sa browse`. With EVENTSTORE_SA_TEST_SCREENSHOTS, the pictures of docs/browser.md are
taken.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from eventstore_sa import EventStore, NewEvent, Projector, SyncEventStore, event_metadata
from eventstore_sa.browser import event_browser
from eventstore_sa.projection import MissingHandlerBehaviour, SyncProjectionStore
from eventstore_sa.subscriptions import FailurePolicy, SyncSubscription, catch_up_sync
from eventstore_sa.types import StreamIdentifier
from tests.chromium import CHROMIUM
from tests.patience import PATIENCE_S, wait_until

pytestmark = pytest.mark.chromium

PICTURES = os.environ.get("EVENTSTORE_SA_TEST_SCREENSHOTS")
MORNING = datetime(2026, 3, 14, 8, 30, tzinfo=UTC)
HOSTILE = '"><img src=x onerror=alert(1)><script>alert(1)</script>\u202e'


class OrderProjector(Projector[StreamIdentifier, dict[str, Any], None]):
    """The state of an order."""

    missing_handler_behaviour = MissingHandlerBehaviour.IGNORE
    categories = ("orders",)

    def initial_state_factory(self) -> dict[str, Any]:
        return {}

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: dict[str, Any], source: StreamIdentifier) -> str:
        return source.stream

    def order_placed(self, state: dict[str, Any], event: Any) -> dict[str, Any]:
        return {"status": "placed", "customer": event.payload["customer"], "lines": event.payload["lines"], "paid": 0}

    def order_paid(self, state: dict[str, Any], event: Any) -> dict[str, Any]:
        return {**state, "status": "paid", "paid": event.payload["amount"], "method": event.payload["method"]}

    def order_shipped(self, state: dict[str, Any], event: Any) -> dict[str, Any]:
        return {**state, "status": "shipped", "parcel": {"carrier": "DHL", "pieces": 1}}


class Shop:
    """A shop that has been open for a morning."""

    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path}/shop.db"
        self.store = SyncEventStore(self.url)
        self.store.create_schema()
        self.count = 0
        self.checkouts = 0

    def publish(self, name: str, category: str, stream: str, payload: Any, cause: Any = None, **fields: Any) -> Any:
        self.count += 1
        moment = MORNING + timedelta(seconds=self.count * 41, milliseconds=self.count * 137 % 1000)
        event = NewEvent(
            id=UUID(int=(0x0195_9300 + self.count << 96) | 0x7000_8000_0000_0000_0000_0000 + self.count * 7919**5),
            name=name,
            payload=payload,
            observed_at=moment,
            occurred_at=moment - timedelta(milliseconds=12),
            **fields,
        )
        metadata: dict[str, Any] = {} if cause is not None else {"correlation_id": f"checkout-{1000 + self.checkouts}"}
        with event_metadata(actor="web", caused_by=cause, **metadata):
            (stored,) = self.store.stream(category=category, stream=stream).publish(events=[event])
        return stored

    def order(self, number: int, *, shipped: bool = True) -> Any:
        self.checkouts += 1
        name = ["Ada Lovelace", "Grace Hopper", "Alan Turing", "Edsger Dijkstra", "Barbara Liskov"][number % 5]
        key = f"2026-{1041 + number}"
        lines = [
            {"sku": "bolts-m8", "quantity": 40 + number, "price": {"amount": 12, "currency": "EUR"}},
            {"sku": "nuts-m8", "quantity": 40 + number, "price": {"amount": 7, "currency": "EUR"}},
        ]
        placed = self.publish(
            "order-placed",
            "orders",
            key,
            {"customer": name, "lines": lines, "gift": number % 3 == 0, "note": None},
            tags={f"customer:{number % 5 + 1}"},
            version=2,
        )
        requested = self.publish("payment-requested", "payments", f"pay-{key}", {"order": key, "amount": 19}, placed)
        paid = self.publish("order-paid", "orders", key, {"amount": 19, "method": "card"}, requested)
        self.publish("invoice-sent", "invoices", key, {"to": f"{name.split()[0].lower()}@example.org"}, paid)
        if shipped:
            packed = self.publish("parcel-packed", "shipments", f"p-{key}", {"weight_g": 840, "pieces": 1}, paid)
            self.publish("order-shipped", "orders", key, {"parcel": f"p-{key}"}, packed)
        return paid


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shop = Shop(tmp_path_factory.mktemp("shop"))
    hostile = shop.publish(
        HOSTILE, HOSTILE, HOSTILE, {HOSTILE: [HOSTILE], "k" * 500: "x" * 5_000, "deep": [[[[[[]]]]]]}
    )
    assert hostile.sequence_number == 1
    for number in range(14):
        shop.order(number, shipped=number < 12)
    SyncProjectionStore(shop.store).project(OrderProjector(), events=shop.store.log().read())

    def refuse(event: Any) -> None:
        if event.name == "invoice-sent" and event.stream.endswith("7"):
            raise ConnectionError("the mail server does not answer")

    mails = SyncSubscription("mails", shop.store.log(), refuse, on_failure=FailurePolicy(retries=0, then="park"))
    ledger = SyncSubscription("ledger", shop.store.category(category="payments"), lambda event: None, partitions=2)
    catch_up_sync(mails)
    catch_up_sync(ledger)
    shop.order(14, shipped=False)
    yield shop
    shop.store.close()


@pytest.fixture(scope="module")
def address(shop: Shop) -> Iterator[str]:
    """Serve the pages, in a thread with an event loop of its own."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        servers: list[uvicorn.Server] = []

        async def serve() -> None:
            async with EventStore(shop.url.replace("sqlite", "sqlite+aiosqlite")) as store:
                app = event_browser(store, projectors=[OrderProjector()], title="Shop events")
                config = uvicorn.Config(app, lifespan="off", log_level="error", timeout_graceful_shutdown=1)
                servers.append(uvicorn.Server(config))
                await servers[0].serve([listener])

        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        try:
            wait_until(lambda: not thread.is_alive() or (servers and servers[0].started), "the server has started")
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            servers[0].should_exit = True
            thread.join(PATIENCE_S)


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    yield browser
    browser.close()


class Tab:
    """A page, and what has gone wrong in it."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.problems: list[str] = []
        page.set_default_timeout(PATIENCE_S * 1000)
        page.on("console", lambda message: self.problems.append(message.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("dialog", lambda dialog: self.problems.append(f"dialog: {dialog.message}"))
        page.on("request", self._check)

    def go(self, url: str) -> Page:
        response = self.page.goto(f"{self.address}{url}")
        assert response is not None
        assert response.status == 200, (url, response.text())
        return self.page

    def _check(self, request: Any) -> None:
        if not request.url.startswith(self.address):
            self.problems.append(f"asks for {request.url}")


@pytest.fixture
def tab(chromium: Browser, address: str) -> Iterator[Tab]:
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab = Tab(context.new_page(), address)
    yield tab
    assert tab.problems == []
    context.close()


PAGES = {
    "log": "/",
    "stream": "/?category=orders&stream=2026-1041",
    "search": "/?name=order-paid&from=2026-03-14",
    "nothing": "/?category=orders&stream=unknown",
    "event": "/event/2",
    "hostile": "/event/1",
    "trace": "/event/4/trace",
    "state": "/state?projector=order&category=orders&stream=2026-1041&position=1",
    "categories": "/categories",
    "streams": "/streams?category=orders",
    "projections": "/projections?name=order",
    "projection": "/projection?name=order&id=2026-1041",
    "subscriptions": "/subscriptions",
    "subscription": "/subscription?name=mails",
    "watermark": "/watermark",
}


# Axe takes a second or two for each page.
FEW = ("log", "hostile", "trace")
WAYS = [(name, *(("light", 1280) if number % 2 else ("dark", 360))) for number, name in enumerate(FEW)]
ALL_WAYS = [(name, *way) for name in PAGES for way in (("light", 360), ("dark", 1280))]


@pytest.mark.parametrize("ways", [WAYS, pytest.param(ALL_WAYS, marks=pytest.mark.long)])
def test_pages_are_accessible_and_fit_the_screen(
    ways: list[tuple[str, str, int]], chromium: Browser, address: str, shop: Shop
) -> None:
    problems: dict[tuple[str, str], Any] = {}
    for scheme, width in {(scheme, width) for _, scheme, width in ways}:
        context = chromium.new_context(
            color_scheme=scheme,  # type: ignore[arg-type]
            viewport={"width": width, "height": 740},
            reduced_motion="reduce",
            bypass_csp=True,  # axe is a script of this test's own
        )
        tab = Tab(context.new_page(), address)
        for name, _, _ in [way for way in ways if way[1:] == (scheme, width)]:
            page = tab.go(PAGES[name])
            found = Axe().run(page, options={"resultTypes": ["violations"]})
            if found.violations_count:
                problems[name, scheme] = found.generate_report()
            wide = page.evaluate("document.documentElement.scrollWidth")
            if wide > width:
                problems[name, f"{width}"] = f"it is {wide} wide"
        assert tab.problems == []
        context.close()

    assert problems == {}


def test_scripts_of_others_do_not_run(tab: Tab) -> None:
    for url in ("/", "/event/1", "/event/1/trace", "/categories"):
        page = tab.go(url)
        assert page.evaluate("typeof window.alerted") == "undefined"
        assert page.locator("main img, main script, iframe").count() == 0


def test_the_live_tail_shows_events_as_they_come(tab: Tab, shop: Shop) -> None:
    page = tab.go("/?category=orders")
    page.keyboard.press("l")
    page.wait_for_url("**live=1**")
    rows = page.locator(".events tbody tr")
    before = rows.count()

    paid = shop.order(30)
    page.wait_for_selector(f"#e{paid.sequence_number}")
    assert page.evaluate("document.querySelector('.events tbody tr td a').textContent") >= str(paid.sequence_number)

    # A part that comes again is not shown twice.
    page.wait_for_function(f"document.querySelectorAll('.events tbody tr').length >= {before + 3}")
    ids = page.eval_on_selector_all(".events tbody tr", "rows => rows.map(row => row.id)")
    assert len(ids) == len(set(ids)) == before + 3
    assert "new events" in (page.locator("#tail-state").text_content() or "")


def test_the_keyboard_leads_everywhere(tab: Tab) -> None:
    page = tab.go("/")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("j")
    assert page.locator("tr.selected").count() == 1
    number = page.locator("tr.selected td").first.inner_text()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/event/{number}")
    page.keyboard.press("u")
    page.wait_for_url("**stream=**")
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("orders/2026-1041")
    page.keyboard.press("Enter")
    page.wait_for_url("**stream=2026-1041**")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/event/**")
    here = page.url
    page.keyboard.press("p")
    page.wait_for_url(lambda url: url != here)


def test_a_payload_is_copied_as_json(tab: Tab) -> None:
    page = tab.go("/event/3")

    page.locator("#payload button").click()
    page.wait_for_selector("text=Copied")

    assert page.evaluate("navigator.clipboard.readText()") == '{"order":"2026-1041","amount":19}'


def test_trees_fold(tab: Tab) -> None:
    page = tab.go("/event/2")
    assert page.locator("#payload >> text=bolts-m8").is_visible()

    page.locator("#payload summary").first.click()

    assert not page.locator("#payload >> text=bolts-m8").is_visible()


if PICTURES:

    def test_pictures(chromium: Browser, address: str, shop: Shop) -> None:
        for scheme in ("light", "dark"):
            context = chromium.new_context(
                color_scheme=scheme,  # type: ignore[arg-type]
                viewport={"width": 1180, "height": 640},
                reduced_motion="reduce",
            )
            tab = Tab(context.new_page(), address)
            for name in ("log", "event", "trace", "state", "subscriptions"):
                tab.go(PAGES[name]).screenshot(path=Path(PICTURES, f"browser-{name}-{scheme}.png"))
            context.close()
