"""The event browser: every page over every kind of store, visited without a server, what it costs, and what it refuses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy import event as sqlalchemy_event

from eventstore_sa import EventStore, EventTypes, NewEvent, Projector, SyncEventStore, event, event_metadata
from eventstore_sa.browser import BasicAuth, EventBrowser, event_browser
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.projection import MissingHandlerBehaviour, ProjectionStore, SyncProjectionStore
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter, SyncInMemoryEventStorageAdapter
from eventstore_sa.subscriptions import (
    FailurePolicy,
    Subscription,
    SyncSubscription,
    catch_up,
    catch_up_sync,
)
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import StreamIdentifier
from tests.awaiting import settled
from tests.browsing import Visitor
from tests.hosts import KINDS_OF_DRIVERS, Host, statements_of

pytestmark = pytest.mark.keeps_connections

IN_MEMORY = ("memory", "memory without asyncio")
"""For what does not depend on the database."""

HOSTILE = '"><script>alert(1)</script>\u202e'


class OrderProjector(Projector[StreamIdentifier, dict[str, Any], None]):
    """The state of an order; it changes the state that it is given."""

    missing_handler_behaviour = MissingHandlerBehaviour.IGNORE

    def initial_state_factory(self) -> dict[str, Any]:
        return {}

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: dict[str, Any], source: StreamIdentifier) -> str:
        return source.stream

    def placed(self, state: dict[str, Any], event: Any) -> dict[str, Any]:
        state |= {"state": "placed", "total": event.payload["total"], "secret": "s3cr3t"}
        return state

    def paid(self, state: dict[str, Any], event: Any) -> dict[str, Any]:
        state["state"] = "paid"
        return state

    def refused(self, state: dict[str, Any], event: Any) -> dict[str, Any]:
        raise ValueError("no refusals")


class Shop:
    """A store of some kind, and what tests do with it."""

    def __init__(self, store: Any, host: Host | None = None) -> None:
        self.store = store
        self.host = host

    @property
    def is_async(self) -> bool:
        return isinstance(self.store, EventStore)

    def browse(self, *, root: str = "", page_size: int = 50, **options: Any) -> Visitor:
        app = event_browser(self.store, **options)
        app.site.page_size = page_size
        app.site.poll_seconds = 0.01
        return Visitor(app, root)

    async def publish(
        self, name: str = "placed", *, category: str = "orders", stream: str = "1", count: int = 1, **fields: Any
    ) -> Any:
        """Publish some events alike; return the last."""
        events = [NewEvent(name=name, **{"payload": {"total": number}, **fields}) for number in range(count)]
        return (await settled(self.store.stream(category=category, stream=stream).publish(events=events)))[-1]

    def projections(self) -> Any:
        return (ProjectionStore if self.is_async else SyncProjectionStore)(self.store)

    def typed(self, *classes: type, **options: Any) -> Shop:
        kind: Any = EventStore if self.is_async else SyncEventStore
        return Shop(kind(self.store.adapter, types=EventTypes(*classes, **options)), self.host)

    async def catch_up(self, name: str, source: Any, handler: Any, **options: Any) -> Any:
        if self.is_async:
            subscription = Subscription(name, source, handler, **options)
            await catch_up(subscription)
            return subscription
        synchronous = SyncSubscription(name, source, handler, **options)
        catch_up_sync(synchronous)
        return synchronous


@pytest.fixture(params=[*IN_MEMORY, *KINDS_OF_DRIVERS])
async def shop(request: pytest.FixtureRequest, make_host: Callable[[str], Host]) -> AsyncIterator[Shop]:
    if request.param == "memory":
        yield Shop(EventStore(InMemoryEventStorageAdapter()))
    elif request.param == "memory without asyncio":
        yield Shop(SyncEventStore(SyncInMemoryEventStorageAdapter()))
    else:
        host = make_host(request.param)
        yield Shop(host.store, host)
        await host.aclose()


async def fill(shop: Shop) -> Any:
    """Store something for every page; return the event in the middle of a chain of causes."""
    with event_metadata(correlation_id="request-7", secret="s3cr3t"):
        first = await shop.publish(
            tags={"customer:1", HOSTILE}, payload={"total": 7, "secret": "s3cr3t", HOSTILE: [HOSTILE]}
        )
    with event_metadata(caused_by=first):
        second = await shop.publish("paid", stream="1")
    with event_metadata(caused_by=second):
        await shop.publish("shipped", category="shipments", stream="of-1", payload=None)
    await shop.publish(HOSTILE, category=HOSTILE, stream=f"../{HOSTILE}?a=b#c", payload=HOSTILE)
    await shop.publish("big", payload={"list": list(range(300)), "text": "x" * 2_000, "deep": [[[[[[1]]]]]]})
    await settled(shop.projections().project(OrderProjector(), events=await all_events(shop)))
    return second


async def all_events(shop: Shop) -> Any:
    return await settled(shop.store.log().read())


class Links(HTMLParser):
    """What a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: set[str] = set()
        self.problems: list[str] = []

    def handle_data(self, data: str) -> None:
        if "\u202e" in data:
            self.problems.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("style", "iframe", "object", "embed", "base", "img") or (tag == "script" and "src" not in given):
            self.problems.append(f"<{tag}>")
        self.problems += [name for name in given if name.startswith("on") or name in ("style", "srcdoc")]
        for name in ("href", "src", "action", "data-tail", "data-copy", "data-up"):
            url = given.get(name)
            if url is None or url.startswith("#"):
                continue
            if not url.startswith("/ops/events"):
                self.problems.append(url)
            elif tag != "form":
                self.urls.add(url.removeprefix("/ops/events"))


async def crawl(visitor: Visitor, of_each_kind: int = 400) -> dict[str, str]:
    """Follow links from the first page on, to so many pages of each kind; return the pages."""
    pages: dict[str, str] = {}
    visited: Counter[str] = Counter()
    waiting = ["/", "/?live=1"]
    while waiting:
        url = waiting.pop()
        if url in pages or url.startswith("/tail") or visited[kind_of(url)] == of_each_kind:
            continue
        visited[kind_of(url)] += 1
        reply = await visitor.get(url)
        assert reply.status in (200, 303), (url, reply.status, reply.text)
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "'unsafe" not in reply.headers["content-security-policy"]
        assert reply.headers["referrer-policy"] == "no-referrer"
        pages[url] = reply.text
        if reply.status == 303:
            waiting.append(reply.headers["location"].removeprefix("/ops/events"))
        elif reply.headers["content-type"].startswith("text/html"):
            assert "<script>alert" not in reply.text
            links = Links()
            links.feed(reply.text)
            assert links.problems == [], url
            assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
            waiting += sorted(links.urls - pages.keys())
    return pages


def kind_of(url: str) -> str:
    return url.split("?", maxsplit=1)[0].strip("/").split("/")[0]


@pytest.mark.parametrize(("of_each_kind", "pages_at_least"), [(4, 30), pytest.param(400, 41, marks=pytest.mark.long)])
async def test_every_link_leads_somewhere_and_hostile_text_stays_text(
    shop: Shop, of_each_kind: int, pages_at_least: int
) -> None:
    await fill(shop)
    subscription = await shop.catch_up("billing", shop.store.log(), lambda event: None)

    visitor = shop.browse(root="/ops/events", projectors=[OrderProjector()], subscriptions=[subscription])
    pages = await crawl(visitor, of_each_kind)

    assert len(pages) >= pages_at_least
    assert {kind_of(url) for url in pages} >= {
        "",
        "assets",
        "categories",
        "event",
        "projection",
        "projections",
        "state",
        "step",
        "streams",
        "subscription",
        "subscriptions",
        "watermark",
    }


@pytest.mark.parametrize("shop", IN_MEMORY, indirect=True)
async def test_what_is_hidden_is_on_no_page_and_cannot_be_searched_for(shop: Shop) -> None:
    await fill(shop)

    visitor = shop.browse(root="/ops/events", projectors=[OrderProjector()], redact=["secret"])
    pages = await crawl(visitor)

    assert [url for url, page in pages.items() if "s3cr3t" in page] == []
    assert any("[hidden]" in page for page in pages.values())
    assert "No event found" in await visitor.page("/?text=s3cr3t")
    assert "order-placed" not in await visitor.page("/?text=s3cr3t")
    assert (await visitor.get("/projections?name=order&field=state.secret&value=s3cr3t")).status == 400
    assert (await visitor.get("/projections?name=order&field=secret&value=s3cr3t")).status == 400


@pytest.mark.parametrize("shop", IN_MEMORY, indirect=True)
async def test_what_a_function_hides_by_its_value_is_on_no_page_and_cannot_be_searched_for(shop: Shop) -> None:
    await fill(shop)

    visitor = shop.browse(
        root="/ops/events", projectors=[OrderProjector()], redact=lambda path, value: value == "s3cr3t"
    )
    pages = await crawl(visitor)

    assert [url for url, page in pages.items() if "s3cr3t" in page] == []
    assert "[hidden]" in await visitor.page("/state?projector=order&category=orders&stream=1&position=0")
    for operator in ("=", "%E2%89%A5"):
        found = await visitor.page(f"/projections?name=order&field=state.secret&is={operator}&value=s3cr3t")
        assert "No projection found" in found


def numbers_on(page: str) -> list[int]:
    return [int(number) for number in re.findall(r'<tr data-row id="e(\d+)"', page)]


def link_on(page: str, text: str) -> str | None:
    found = re.search(rf'href="([^"]*)"[^>]*>{text}', page)
    return None if found is None else found[1].replace("&amp;", "&")


@in_turn("filters", ["", "category=orders", "category=orders&stream=1", "tag=all"])
async def test_pages_of_the_log_hold_each_event_once(filters: str, shop: Shop) -> None:
    if not await all_events(shop):
        await shop.publish(count=7, tags={"all"})
    visitor = shop.browse(page_size=3)

    pages = [await visitor.page(f"/?{filters}")]
    while (older := link_on(pages[-1], "Older")) is not None:
        pages.append(await visitor.page(older))
    back = [pages[-1]]
    while (newer := link_on(back[-1], "← Newer")) is not None:
        back.append(await visitor.page(newer))

    everything = [event.sequence_number for event in await all_events(shop)][::-1]
    assert [number for page in pages for number in numbers_on(page)] == everything
    assert {number for page in back for number in numbers_on(page)} == {*everything}


async def test_filters_choose_events(shop: Shop) -> None:
    await shop.publish("placed", tags={"a"}, payload={"note": 'say "hi"'}, metadata={"correlation_id": "c-1"})
    await shop.publish("paid", tags={"a", "b"})
    paid = await shop.publish("paid", category="bills", tags={"b"})
    visitor = shop.browse()

    async def found(query: str) -> int:
        return len(numbers_on(await visitor.page(query)))

    day = f"{paid.observed_at:%Y-%m-%d}"
    assert await found("/?name=paid") == 2
    assert await found("/?name=paid&category=bills") == 1
    assert await found("/?name=paid&tag=a") == 1
    assert await found("/?tag=b&category=orders") == 1
    assert await found("/?tag=b&category=orders&stream=1") == 1
    assert await found("/?text=say+%22hi%22") == 1
    assert await found("/?text=Say") == 0
    assert await found("/?correlation=c-1") == 1
    assert await found("/?correlation=c") == 0
    assert await found(f"/?from={day}") == 3
    assert await found(f"/?to={day}") == 0
    assert "payload" in await visitor.page(f"/?id={paid.id}")


async def test_a_search_goes_backwards_in_parts_until_everything_was_looked_at(shop: Shop, monkeypatch: Any) -> None:
    monkeypatch.setattr("eventstore_sa.browser.reads._FIRST_SLICE", 4)
    first = await shop.publish("rare")
    await shop.publish(count=10)
    last = await shop.publish("rare")
    visitor = shop.browse()
    visitor.app.site.search_seconds = 0

    pages = [await visitor.page("/?name=rare")]
    while (further := link_on(pages[-1], "Continue")) is not None:
        pages.append(await visitor.page(further))

    assert [numbers_on(page) for page in pages] == [[last.sequence_number], [], [first.sequence_number]]
    assert "That is all there is" in pages[-1]


async def test_a_search_before_a_time_begins_near_it(shop: Shop, monkeypatch: Any) -> None:
    monkeypatch.setattr("eventstore_sa.browser.reads._NEAR", 3)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(30):
        await shop.publish(observed_at=start + timedelta(hours=number))
    imported = await shop.publish(observed_at=start)
    visitor = shop.browse()

    page = await visitor.page("/?to=2026-01-01T10:30&from=2026-01-01T08:30")
    from_end = await visitor.page("/?to=2026-01-01T00:30&begin=end")

    (looked_from,) = re.findall(r"Looked at numbers (\d+) down", page)
    assert len(numbers_on(page)) == 2
    assert int(looked_from) < imported.sequence_number - 10
    assert link_on(page, "From the end") is not None
    assert imported.sequence_number in numbers_on(from_end)


async def test_the_search_box_leads_to_what_was_meant(shop: Shop) -> None:
    stored = await shop.publish(tags={"customer:1"})
    visitor = shop.browse()

    async def leads_to(text: str) -> str:
        return (await visitor.get(f"/go?q={text}")).headers["location"]

    assert await leads_to(str(stored.sequence_number)) == f"/event/{stored.sequence_number}"
    assert await leads_to(str(stored.id)) == f"/event/{stored.sequence_number}"
    assert await leads_to("orders/1") == "/?category=orders&stream=1"
    assert await leads_to("customer:1") == "/?tag=customer%3A1"
    assert await leads_to("orders") == "/?category=orders"
    assert await leads_to("bolts") == "/?text=bolts"
    assert await leads_to("x" * 2000) == f"/?text={'x' * 2000}"
    assert (await leads_to(str(UUID(int=0)))).startswith("/?correlation=")


WRONG: dict[str, int] = {
    "/nowhere": 404,
    "/event/x": 400,
    "/event/99999999999999999999": 400,
    "/event/9223372036854775807": 404,
    "/event/12345/payload": 404,
    "/event/12345/other": 404,
    "/?before=-1": 400,
    "/?from=yesterday": 400,
    "/?from=0001-01-01T00:00%2B23:00": 400,
    "/?id=1": 400,
    "/?stream=1": 400,
    "/?category=%00": 400,
    f"/?category={'x' * 2000}": 400,
    "/?tag=%ED%A0%80": 200,
    "/streams": 400,
    "/state?projector=x&category=a&stream=b": 404,
    "/projection?name=a&id=b": 404,
    "/projections?name=a&field=state&is=like": 400,
    "/subscription?name=a": 404,
    "/tail?after=x": 400,
    "/" + "?" + "&".join(f"a{number}=1" for number in range(100)): 400,
    "/go": 400,
    "/assets/../site.py": 404,
}


async def test_what_cannot_be_shown_is_said(shop: Shop) -> None:
    visitor = shop.browse()

    found = {url: (await visitor.get(url)).status for url in WRONG}

    assert found == WRONG


class Checkouts:
    """How many connections of an engine are in use."""

    def __init__(self, engine: Any) -> None:
        self.now = 0
        sync_engine = getattr(engine, "sync_engine", engine)
        sqlalchemy_event.listen(sync_engine, "checkout", lambda *_: self._move(1))
        sqlalchemy_event.listen(sync_engine, "checkin", lambda *_: self._move(-1))

    def _move(self, by: int) -> None:
        self.now += by


# Reads of a tag and a category are bounded by the watermark, which is a statement of its own.
STATEMENTS = {
    "/": 2,
    "/?before=3": 2,
    "/?category=orders": 2,
    "/?category=orders&stream=1": 1,
    "/?tag=customer:1": 2,
    "/categories": 1,
    "/streams?category=orders": 1,
    "/event/1": 1,
    "/event/1.json": 1,
    "/event/1/payload?at=0": 1,
    "/projections": 1,
    "/projections?name=order": 1,
    "/projection?name=order&id=1": 1,
    "/subscriptions": 3,
    "/watermark": 1,
}


@pytest.mark.parametrize("shop", KINDS_OF_DRIVERS, indirect=True)
async def test_a_page_costs_one_or_two_statements_and_keeps_no_connection(shop: Shop) -> None:
    await fill(shop)
    assert shop.host is not None
    visitor = shop.browse(projectors=[OrderProjector()])
    await crawl_once(visitor)
    first = (await all_events(shop))[0].sequence_number
    checkouts = Checkouts(shop.host.engine)

    found: dict[str, int] = {}
    for url in STATEMENTS:
        with statements_of(shop.host.engine) as statements:
            await visitor.page(url.replace("/event/1", f"/event/{first}"))
        found[url] = len([each for each in statements if "es_" in each or "pg_sequence" in each])
        assert checkouts.now == 0

    assert {url: found[url] for url in STATEMENTS if found[url] > STATEMENTS[url]} == {}


async def crawl_once(visitor: Visitor) -> None:
    """Look at a page of each kind, so that what is checked once has been."""
    for url in ("/", "/projections", "/subscriptions", "/watermark"):
        await visitor.page(url)


async def test_a_tail_has_each_event_once_also_when_it_is_opened_again(shop: Shop) -> None:
    await shop.publish(count=3)
    visitor = shop.browse()
    page = await visitor.page("/?live=1&category=orders")
    url = re.findall('data-tail="([^"]*)"', page)[0].replace("&amp;", "&")

    rows: list[int] = []
    async with visitor.tail(url) as tail:
        await shop.publish(count=2)
        await shop.publish("elsewhere", category="bills")
        rows += numbers_on(await tail.row()) + numbers_on(await tail.row())
        await tail.settle() if tail.last_id is None else None
        last = tail.last_id
    assert last is not None
    await shop.publish("later", count=150)
    async with visitor.tail(url, last_event_id=last) as tail:
        for _ in range(150):
            rows += numbers_on(await tail.row())

    everything = [each.sequence_number for each in await all_events(shop) if each.category == "orders"]
    assert rows == everything[3:]


async def test_a_tail_of_a_stream_goes_by_position(shop: Shop) -> None:
    visitor = shop.browse()
    url = re.findall('data-tail="([^"]*)"', await visitor.page("/?live=1&category=orders&stream=new"))[0]

    async with visitor.tail(url.replace("&amp;", "&")) as tail:
        stored = await shop.publish(stream="new")
        await shop.publish(stream="other")
        last = await shop.publish("<b>", stream="new")
        rows = [await tail.row(), await tail.row()]

    assert [numbers_on(row) for row in rows] == [[stored.sequence_number], [last.sequence_number]]
    assert "&lt;b&gt;" in rows[1]


@pytest.mark.parametrize("shop", ["postgresql+asyncpg", "postgresql+psycopg"], indirect=True)
async def test_a_tail_waits_for_transactions_that_may_still_commit_earlier_events(shop: Shop) -> None:
    assert shop.host is not None
    visitor = shop.browse()
    checkouts = Checkouts(shop.host.engine)
    async with visitor.tail("/tail?after=0") as tail:
        async with shop.host.caller() as (session, store):
            await shop.host.publish(store, "earlier", stream="slow")
            shop.host.ground.publish("later", stream="fast")
            watermark = await visitor.page("/watermark")
            before = len(tail.rows)
            await settled(session.commit())
        rows = [await tail.row(), await tail.row()]

    assert "held back" in watermark
    assert "pg_terminate_backend" in watermark
    assert before == 0
    assert ["earlier" in rows[0], "later" in rows[1]] == [True, True]
    assert checkouts.now == 0


async def test_causes_and_effects_are_drawn(shop: Shop) -> None:
    middle = await fill(shop)
    visitor = shop.browse()

    page = await visitor.page(f"/event/{middle.sequence_number}/trace")

    drawn = re.findall(r"<title>(\d+) ([^<]*)</title>", page)
    assert [name.split(" ")[0] for _, name in sorted(drawn, key=lambda each: int(each[0]))] == [
        "placed",
        "paid",
        "shipped",
    ]
    assert page.count('class="edge"') == 2
    assert page.count('class="outline"') == 3
    assert "style=" not in page


@pytest.mark.parametrize("shop", IN_MEMORY, indirect=True)
async def test_causes_that_point_at_each_other_are_drawn_without_circles(shop: Shop) -> None:
    one, other = uuid4(), uuid4()
    await shop.publish("one", id=one, metadata={"causation_id": str(other), "correlation_id": "c"})
    last = await shop.publish("other", id=other, metadata={"causation_id": str(one), "correlation_id": "c"})
    await shop.publish("self", metadata={"causation_id": "not an id", "correlation_id": {"c": 1}})

    page = await shop.browse().page(f"/event/{last.sequence_number}/trace")

    assert page.count('class="edge"') == 1
    assert page.count('class="box"') == 2


async def test_time_travel_shows_a_state_and_what_an_event_changed(shop: Shop) -> None:
    await shop.publish("placed", payload={"total": 7})
    await shop.publish("paid")
    await shop.publish("unknown")
    visitor = shop.browse(projectors=[OrderProjector()])
    url = "/state?projector=order&category=orders&stream=1"

    first, second, last = [await visitor.page(f"{url}&position={position}") for position in (0, 1, 99)]

    def changes(page: str) -> list[tuple[str, str]]:
        rows = re.findall(r'<tr class="(added|removed)">.*?class="path"><bdi>(.*?)</bdi>', page)
        return [(kind, path) for kind, path in rows]

    assert changes(first) == [("added", "state"), ("added", "total"), ("added", "secret")]
    assert changes(second) == [("removed", "state"), ("added", "state")]
    assert "placed" in second
    assert "Nothing: the state is the same" in last
    assert link_on(last, "After") is None


@pytest.mark.parametrize("shop", IN_MEMORY, indirect=True)
async def test_a_projector_that_fails_is_shown_with_its_error(shop: Shop) -> None:
    await shop.publish("refused")
    url = "/state?projector=order&category=orders&stream=1"

    page = await shop.browse(projectors=[OrderProjector()]).page(url)
    redacted = await shop.browse(projectors=[OrderProjector()], redact=["x"]).page(url)

    assert "ValueError: no refusals" in page
    assert "ValueError" in redacted
    assert "no refusals" not in redacted


@event("priced", version=2, upcast={1: lambda payload: {**payload, "currency": "EUR"}})
@dataclass(frozen=True)
class Priced:
    amount: int
    currency: str


@pytest.mark.parametrize("shop", IN_MEMORY, indirect=True)
async def test_an_event_is_shown_as_it_is_stored_and_as_it_is_read(shop: Shop) -> None:
    stored = await shop.publish("priced", payload={"amount": 12})
    unfit = await shop.publish("priced", payload={"amount": "much"})
    visitor = shop.typed(Priced).browse()

    page = await visitor.page(f"/event/{stored.sequence_number}")
    read = await visitor.get(f"/event/{stored.sequence_number}/read.json")
    raw = await visitor.get(f"/event/{stored.sequence_number}/payload.json")
    broken = await visitor.page(f"/event/{unfit.sequence_number}")

    assert "Payload as stored" in page
    assert (read.json, raw.json) == ({"amount": 12, "currency": "EUR"}, {"amount": 12})
    assert "cannot be read" in broken
    assert "much" in broken


async def test_json_of_an_event_is_complete(shop: Shop) -> None:
    stored = await shop.publish(payload={"a": [1, {"b": "ü"}]}, metadata={"m": 1}, tags={"t"})
    visitor = shop.browse()

    whole = await visitor.get(f"/event/{stored.sequence_number}.json")
    payload = await visitor.get(f"/event/{stored.sequence_number}/payload.json")

    assert whole.json == msgspec.json.decode(msgspec.json.encode(stored.serialise()))
    assert payload.json == {"a": [1, {"b": "ü"}]}
    assert whole.headers["content-security-policy"] == "sandbox"


async def test_projections_are_listed_searched_and_shown(shop: Shop) -> None:
    streams = {f"{number:03}": {"events": [NewEvent(name="placed", payload={"total": number})]} for number in range(30)}
    await settled(shop.store.category(category="orders").publish(streams=streams))
    await settled(shop.projections().project(OrderProjector(), events=await all_events(shop)))
    visitor = shop.browse(projectors=[OrderProjector()], page_size=12)

    def ids(page: str) -> list[str]:
        return re.findall(r'class="main-link" href="/projection\?name=order&amp;id=(\d+)"', page)

    assert "order" in await visitor.page("/projections")
    pages = [await visitor.page("/projections?name=order")]
    while (further := link_on(pages[-1], "Older")) is not None:
        pages.append(await visitor.page(further))
    assert [each for page in pages for each in ids(page)] == [f"{number:03}" for number in range(30)]
    assert ids(await visitor.page("/projections?name=order&field=total&is=%E2%89%A5&value=28")) == ["028", "029"]
    assert ids(await visitor.page("/projections?name=order&begin=029")) == ["029"]
    assert ids(await visitor.page("/projections?name=order&field=state.state&value=paid")) == []
    assert "Time travel" in await visitor.page("/projection?name=order&id=007")


async def test_subscriptions_are_shown_with_what_they_keep_aside(shop: Shop) -> None:
    await shop.publish(count=2)

    def refuse(event: Any) -> None:
        raise ValueError(HOSTILE)

    source = shop.store.category(category="orders")
    await shop.catch_up("billing", source, refuse, on_failure=FailurePolicy(retries=0, then="park"))
    idle = (Subscription if shop.is_async else SyncSubscription)("idle", source, refuse)
    visitor = shop.browse(subscriptions=[idle])

    listed = await visitor.page("/subscriptions")
    page = await visitor.page("/subscription?name=billing")

    assert "never run" in listed
    assert re.search("running.*parked.*ValueError.*held", page, re.DOTALL)
    assert "<script>alert" not in page


async def test_an_event_that_cannot_be_read_has_a_row_of_its_own() -> None:
    store = SyncEventStore("sqlite://")
    store.create_schema()
    orders = store.stream(category="orders", stream="1")
    orders.publish(events=[NewEvent(name="a", payload=None) for _ in range(5)])
    engine: Any = store.adapter.bind.engine  # type: ignore[attr-defined]
    deep = "[" * 3_000 + "]" * 3_000
    insert = (
        "INSERT INTO es_events (id, category, stream, position, name, payload, metadata, observed_at, occurred_at) "
        "VALUES (hex(randomblob(16)), 'orders', '1', :position, 'odd', :payload, :metadata, :time, :time)"
    )
    odd = [
        {"position": 5, "payload": "[", "metadata": None, "time": "2026-01-01 00:00:00.000000"},
        {"position": 6, "payload": deep, "metadata": None, "time": "2026-01-01 00:00:00.000000"},
        {"position": 7, "payload": "1", "metadata": None, "time": "infinity"},
        {"position": 8, "payload": "1", "metadata": "{", "time": "2026-01-01 00:00:00.000000"},
    ]
    with engine.begin() as connection:
        connection.execute(text(insert), odd)
    orders.publish(events=[NewEvent(name="last", payload=None)])
    visitor = Visitor(event_browser(store))

    for url in ("/", "/?category=orders&stream=1", "/?text=zzz"):
        page = await visitor.page(url)
        assert page.count("cannot be read") >= (2 if "zzz" not in url else 0)
    assert "It cannot be shown as a tree" in await visitor.page("/event/6")
    assert "deeper" in await visitor.page("/event/7")
    assert len((await visitor.get("/event/7/payload.json")).body) == len(deep)
    assert (await visitor.get("/event/8")).status == 500
    async with visitor.tail("/tail?after=4") as tail:
        rows = [await tail.row() for _ in range(6)]
    assert any("last" in row for row in rows)
    store.close()


REFUSED: dict[str, tuple[dict[str, Any], int]] = {
    "another method": ({"method": "POST", "host": "localhost"}, 405),
    "deleting": ({"method": "DELETE", "host": "localhost"}, 405),
    "asking what is possible": ({"method": "OPTIONS", "host": "localhost"}, 405),
    "another host": ({"host": "evil.example"}, 421),
    "another host with a port": ({"host": "evil.example:8420"}, 421),
    "no host": ({"host": ""}, 421),
    "a password that is wrong": ({"host": "localhost", "authorization": "Basic YWRhOmNvYmFsdA=="}, 401),
    "no password": ({"host": "[::1]:8420"}, 401),
    "what is not Basic": ({"host": "127.0.0.1:1", "authorization": "Bearer YWRhOm1hY2hpbmU="}, 401),
    "what is not base64": ({"host": "localhost", "authorization": "Basic ä"}, 401),
}


async def test_requests_that_may_not_be_served_are_refused() -> None:
    apps = [
        event_browser(store, auth=BasicAuth({"ada": "machine"}), hosts=["localhost", "127.0.0.1", "::1"])
        for store in (EventStore(InMemoryEventStorageAdapter()), SyncEventStore(SyncInMemoryEventStorageAdapter()))
    ]
    for app in apps:
        visitor = Visitor(app)
        for url in ("/", "/tail?after=0", "/event/1.json", "/assets/browser.js"):
            for case, (arguments, status) in REFUSED.items():
                reply = await visitor.get(url, **{"method": "GET", **arguments})
                assert reply.status == status, (case, url)
                assert "Events" not in reply.text
        allowed = await visitor.get("/", host="localhost:8420", authorization="Basic YWRhOm1hY2hpbmU=")
        assert allowed.status == 200


async def test_an_application_decides_who_may_see_it() -> None:
    async def is_operator(request: Any) -> bool:
        return request.headers.get("x-role") == "operator"

    visitor = Visitor(event_browser(EventStore(InMemoryEventStorageAdapter()), auth=is_operator))

    assert (await visitor.get("/")).status == 403
    assert (await visitor.get("/", x_role="operator")).status == 200


async def test_a_coroutine_that_nobody_awaits_lets_nobody_in() -> None:
    async def refuse(request: Any) -> bool:
        return False

    class Refusing:
        async def __call__(self, request: Any) -> bool:
            return False

    store = SyncEventStore(SyncInMemoryEventStorageAdapter())
    for auth in (refuse, Refusing()):
        with pytest.raises(ConfigurationError, match="auth is a coroutine function"):
            event_browser(store, auth=auth)

    def refuse_later(request: Any) -> Any:
        return refuse(request)

    visitor = Visitor(event_browser(store, auth=refuse_later))

    for url in ("/", "/tail?after=0"):
        assert (await visitor.get(url)).status == 500


@pytest.mark.parametrize("shop", IN_MEMORY, indirect=True)
async def test_an_auth_function_that_raises_lets_nobody_in_and_is_logged(shop: Shop, caplog: Any) -> None:
    def broken(request: Any) -> bool:
        raise LookupError("session of ada")

    for url in ("/", "/tail?after=0"):
        reply = await shop.browse(auth=broken).get(url)
        assert (reply.status, "ada" in reply.text) == (500, False)
    assert "session of ada" in caplog.text


@pytest.mark.parametrize("shop", IN_MEMORY, indirect=True)
async def test_a_function_that_raises_ends_a_tail_with_a_message(shop: Shop, caplog: Any) -> None:
    def broken(path: Any, value: Any) -> bool:
        raise LookupError("of ada")

    await shop.publish()

    async with shop.browse(redact=broken).tail("/tail?after=0") as tail:
        with pytest.raises(AssertionError, match="'problem', 'data': 'LookupError'"):
            await tail.row()
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("shop", IN_MEMORY, indirect=True)
async def test_head_is_answered_without_a_body(shop: Shop) -> None:
    visitor = shop.browse()

    for url in ("/", "/tail?after=0", "/nowhere"):
        reply = await visitor.get(url, method="HEAD")
        assert reply.body == b""


async def test_errors_of_the_database_are_shown_without_its_secrets(tmp_path: Any) -> None:
    store = EventStore(f"sqlite+aiosqlite:///{tmp_path}/empty.db")
    visitor = Visitor(event_browser(store))

    reply = await visitor.get("/")

    assert reply.status in (500, 503)
    assert "INSERT" not in reply.text
    assert "SELECT" not in reply.text
    await store.aclose()


WRONG_ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "class of a projector": ({"projectors": [OrderProjector]}, "projectors of a browser are Projectors"),
    "two of a name": ({"projectors": [OrderProjector(), OrderProjector()]}, "two projectors are called 'order'"),
    "subscription by name": ({"subscriptions": ["billing"]}, "subscriptions of a browser are Subscriptions"),
    "name to redact": ({"redact": "password"}, "redact takes the names of fields"),
    "auth": ({"auth": "ada:machine"}, "auth is a function of a request"),
}


@in_turn("case", WRONG_ARGUMENTS)
def test_arguments_that_cannot_be_used_are_refused(case: Any) -> None:
    arguments, message = case

    with pytest.raises(ConfigurationError, match=message):
        event_browser(EventStore(InMemoryEventStorageAdapter()), **arguments)


def test_a_browser_is_given_a_store_on_an_engine() -> None:
    with pytest.raises(ConfigurationError, match="given an EventStore or a SyncEventStore"):
        event_browser("sqlite://")  # type: ignore[call-overload]
    engine = create_engine("sqlite://")
    with engine.connect() as connection, pytest.raises(ConfigurationError, match="reads in transactions of its own"):
        event_browser(SyncEventStore(connection))
    for users in ({}, {"ada": ""}, {"a:b": "x"}):
        with pytest.raises(ConfigurationError, match="BasicAuth needs a name"):
            BasicAuth(users)


def test_the_face_follows_the_store() -> None:
    assert isinstance(event_browser(EventStore(InMemoryEventStorageAdapter())), EventBrowser)
    assert callable(event_browser(SyncEventStore(SyncInMemoryEventStorageAdapter())))
