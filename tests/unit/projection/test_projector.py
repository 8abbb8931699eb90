"""What a projector makes of the events of a source, with asyncio and without."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias
from uuid import UUID

import pytest

from eventstore_sa.errors import ConfigurationError, MissingProjectionHandlerError
from eventstore_sa.projection import MissingHandlerBehaviour, Projection, Projector, handles
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import EventSourceIdentifier, LogIdentifier, StreamIdentifier
from tests.unit.projection.sources import ORDER, AnyEvent, GivenEvents, SyncGivenEvents, stored

Lines: TypeAlias = dict[str, int]
AnyProjector: TypeAlias = Projector[Any, Any, Any]
Project: TypeAlias = Callable[..., Awaitable[Projection[Any, Any]]]


class OrderProjector(Projector[StreamIdentifier, Lines, list[int]]):
    """Lines of an order; the metadata lists the positions and how many lines there were after each."""

    def initial_state_factory(self) -> Lines:
        return {}

    def initial_metadata_factory(self) -> list[int]:
        return []

    def id_factory(self, state: Lines, source: StreamIdentifier) -> str:
        return f"{source.stream} with {len(state)}"

    def update_metadata(self, state: Lines, metadata: list[int], event: AnyEvent) -> list[int]:
        return [*metadata, len(state)]

    def line_added(self, state: Lines, event: AnyEvent) -> Lines:
        return state | {event.payload: 1}

    def emptied(self, state: Lines, event: AnyEvent) -> Lines:
        return {}


class AnyStateProjector(Projector[EventSourceIdentifier, Any, None]):
    """Its only handler replaces the state by the payload."""

    def initial_state_factory(self) -> Any:
        return "initial"

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: Any, source: EventSourceIdentifier) -> str:
        return "only"

    def replaced(self, state: Any, event: AnyEvent) -> Any:
        return event.payload

    def kept(self, state: Any, event: AnyEvent) -> Any:
        return state


ORDER_EVENTS = [
    stored("line-added", "tea"),
    stored("line-added", "milk"),
    stored("emptied"),
    stored("line-added", "jam"),
]


async def project_with_asyncio(projector: AnyProjector, events: list[AnyEvent], **begin: Any) -> Projection[Any, Any]:
    return await projector.project(source=GivenEvents(*events), **begin)


async def project_without(projector: AnyProjector, events: list[AnyEvent], **begin: Any) -> Projection[Any, Any]:
    return projector.project_sync(source=SyncGivenEvents(*events), **begin)


@pytest.fixture(params=[project_with_asyncio, project_without])
def project(request: pytest.FixtureRequest) -> Project:
    function: Project = request.param
    return function


class TestProjecting:
    async def test_events_are_reduced_in_order_to_a_projection(self, project: Project) -> None:
        projection = await project(OrderProjector(), ORDER_EVENTS)

        assert projection == Projection(
            id="42 with 1", name="order", source=ORDER, state={"jam": 1}, metadata=[1, 2, 0, 1]
        )

    async def test_an_empty_source_gives_the_initial_state_and_metadata(self, project: Project) -> None:
        projection = await project(OrderProjector(), [])

        assert projection == Projection(id="42 with 0", name="order", source=ORDER, state={}, metadata=[])

    async def test_projecting_goes_on_from_a_given_state_and_metadata(self, project: Project) -> None:
        begun = await project(OrderProjector(), ORDER_EVENTS[:2])

        continued = await project(OrderProjector(), ORDER_EVENTS[2:], state=begun.state, metadata=begun.metadata)

        assert continued == await project(OrderProjector(), ORDER_EVENTS)

    async def test_falsy_state_and_metadata_are_gone_on_from_too(self, project: Project) -> None:
        class P(OrderProjector):
            def initial_state_factory(self) -> Lines:
                return {"initial": 1}

            def initial_metadata_factory(self) -> list[int]:
                return [100]

        projection = await project(P(), ORDER_EVENTS[:1], state={}, metadata=[])

        assert (projection.state, projection.metadata) == ({"tea": 1}, [1])

    async def test_metadata_stays_as_it_is_by_default(self, project: Project) -> None:
        projection = await project(AnyStateProjector(), [stored("kept")])

        assert projection.metadata is None

    async def test_two_projections_share_no_state(self, project: Project) -> None:
        class P(OrderProjector):
            def line_added(self, state: Lines, event: AnyEvent) -> Lines:
                state[event.payload] = 1
                return state

        projector = P()
        first = await project(projector, ORDER_EVENTS[:1])
        second = await project(projector, ORDER_EVENTS[1:2])

        assert (first.state, second.state) == ({"tea": 1}, {"milk": 1})

    async def test_any_object_can_be_the_state(self, project: Project) -> None:
        class Strange:
            __hash__ = None  # type: ignore[assignment]

            def __bool__(self) -> bool:
                raise AssertionError("nobody asks for the truth of a state")

            def __eq__(self, other: object) -> bool:
                raise AssertionError("nobody compares states")

        for state in (Strange(), {"a": [1]}, [1, 2], {1, 2}, 0, "", False, float("nan"), Strange, print):
            projection = await project(AnyStateProjector(), [stored("replaced", state), stored("kept")])

            assert projection.state is state

    async def test_a_handler_may_return_none(self, project: Project) -> None:
        projection = await project(AnyStateProjector(), [stored("replaced", None), stored("kept")])

        assert projection.state is None

    async def test_handlers_get_the_very_state_and_event(self, project: Project) -> None:
        class P(AnyStateProjector):
            def looked_at(self, state: Any, event: AnyEvent) -> Any:
                return (state, event)

        state, event = object(), stored("looked-at")

        projection = await project(P(), [event], state=state)

        assert projection.state[0] is state
        assert projection.state[1] is event


class TestSources:
    async def test_any_asynchronous_iterable_with_an_identifier_is_a_source(self) -> None:
        class Channel:
            identifier = LogIdentifier()

            async def __aiter__(self) -> AsyncIterator[AnyEvent]:
                yield stored("replaced", 3)

        projection = await AnyStateProjector().project(source=Channel())

        assert (projection.source, projection.state) == (LogIdentifier(), 3)

    async def test_a_source_that_is_its_own_iterator_is_not_closed(self) -> None:
        class Connection:
            identifier = LogIdentifier()
            closed = False

            def __aiter__(self) -> Connection:
                return self

            async def __anext__(self) -> AnyEvent:
                raise StopAsyncIteration

            async def aclose(self) -> None:
                self.closed = True

        connection = Connection()

        await AnyStateProjector().project(source=connection)

        assert not connection.closed

    async def test_a_synchronous_source_given_to_project_is_refused(self) -> None:
        source: Any = SyncGivenEvents()

        with pytest.raises(ConfigurationError, match=r"SyncGivenEvents is read without asyncio: call .*project_sync\("):
            await OrderProjector().project(source=source)

    def test_an_asynchronous_source_given_to_project_sync_is_refused(self) -> None:
        source: Any = GivenEvents()

        with pytest.raises(ConfigurationError, match=r"GivenEvents is read with asyncio: call `await .*\.project\("):
            OrderProjector().project_sync(source=source)

    @in_turn("source", [None, 3, [], ORDER, GivenEvents, iter([])])
    async def test_what_is_no_source_is_refused(self, source: Any) -> None:
        with pytest.raises(ConfigurationError, match="is not an event source: pass a stream"):
            await OrderProjector().project(source=source)
        with pytest.raises(ConfigurationError, match="is not an event source: pass a stream"):
            OrderProjector().project_sync(source=source)


class TestApplying:
    def test_an_event_is_applied_to_a_state(self) -> None:
        assert OrderProjector().apply(event=stored("line-added", "jam"), state={"tea": 1}) == {"tea": 1, "jam": 1}

    def test_an_event_is_applied_to_the_initial_state(self) -> None:
        assert OrderProjector().apply(event=stored("line-added", "jam")) == {"jam": 1}

    def test_an_event_is_applied_to_an_empty_state(self) -> None:
        assert AnyStateProjector().apply(event=stored("kept"), state="") == ""


class TestMissingHandlers:
    async def test_an_event_without_a_handler_is_an_error_by_default(self, project: Project) -> None:
        with pytest.raises(
            MissingProjectionHandlerError, match="'order' has no handler for the event 'Paid'"
        ) as caught:
            await project(OrderProjector(), [*ORDER_EVENTS, stored("Paid")])

        assert (caught.value.projector, caught.value.event_name) == ("order", "Paid")
        assert "define `paid(self, state, event)`" in caught.value.message
        assert "MissingHandlerBehaviour.IGNORE" in caught.value.message

    @in_turn("event_name", ["apply", "import", "2fa-enabled", "\N{PARTY POPPER}", "total"])
    def test_the_error_proposes_no_method_that_would_not_be_called(self, event_name: str) -> None:
        class P(OrderProjector):
            def total(self, state: Lines) -> int:
                return sum(state.values())

        with pytest.raises(MissingProjectionHandlerError) as caught:
            P().apply(event=stored(event_name))

        assert "(self, state, event)" not in caught.value.message
        assert f"@handles({event_name!r})" in caught.value.message
        assert ("(P.total cannot be called as total(state, event))" in caught.value.message) is (event_name == "total")

    async def test_an_event_without_a_handler_can_be_ignored(self, project: Project) -> None:
        class P(OrderProjector):
            missing_handler_behaviour = MissingHandlerBehaviour.IGNORE

        projection = await project(P(), [*ORDER_EVENTS, stored("paid"), stored("apply")])

        assert (projection.state, projection.metadata) == ({"jam": 1}, [1, 2, 0, 1, 1, 1])

    def test_an_ignored_event_leaves_the_very_state(self) -> None:
        class P(OrderProjector):
            missing_handler_behaviour = MissingHandlerBehaviour.IGNORE

        state = {"tea": 1}

        assert P().apply(event=stored("paid"), state=state) is state


class FailingProjector(OrderProjector):
    """Fails at events called "failed"."""

    def failed(self, state: Lines, event: AnyEvent) -> Lines:
        raise ZeroDivisionError("the handler's own words")


class TestFailures:
    ID = UUID("01900000-0000-7000-8000-00000000abcd")
    FAILING = stored("failed", "secret payload", position=7, id=ID)
    NOTE = f"projector 'failing' was at event 'failed' (id {ID}) of stream 'orders/42', position 7"

    async def test_what_a_handler_raises_comes_out_with_a_note_of_where_it_was(self, project: Project) -> None:
        with pytest.raises(ZeroDivisionError) as caught:
            await project(FailingProjector(), [*ORDER_EVENTS, self.FAILING])

        assert str(caught.value) == "the handler's own words"
        assert caught.value.__notes__ == [self.NOTE]

    def test_what_a_handler_raises_in_apply_has_the_note_too(self) -> None:
        with pytest.raises(ZeroDivisionError) as caught:
            FailingProjector().apply(event=self.FAILING)

        assert caught.value.__notes__ == [self.NOTE]

    async def test_what_update_metadata_raises_has_the_note_too(self, project: Project) -> None:
        class FailingProjector(OrderProjector):
            def failed(self, state: Lines, event: AnyEvent) -> Lines:
                return state

            def update_metadata(self, state: Lines, metadata: list[int], event: AnyEvent) -> list[int]:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError) as caught:
            await project(FailingProjector(), [self.FAILING])

        assert caught.value.__notes__ == [self.NOTE]

    async def test_a_missing_handler_has_the_note_too(self, project: Project) -> None:
        with pytest.raises(MissingProjectionHandlerError) as caught:
            await project(OrderProjector(), [self.FAILING])

        assert caught.value.__notes__ == [self.NOTE.replace("'failing'", "'order'")]

    async def test_the_source_is_left_in_good_order_after_a_failure(self) -> None:
        source = GivenEvents(self.FAILING, *ORDER_EVENTS)

        # The error's traceback keeps all generators alive until the end of the block.
        with pytest.raises(ZeroDivisionError) as caught:
            await FailingProjector().project(source=source)

        assert source.ended
        assert caught.tb is not None

    def test_the_synchronous_source_is_left_in_good_order_after_a_failure(self) -> None:
        source = SyncGivenEvents(self.FAILING, *ORDER_EVENTS)

        with pytest.raises(ZeroDivisionError) as caught:
            FailingProjector().project_sync(source=source)

        assert source.ended
        assert caught.tb is not None


class AsyncProjector(OrderProjector):
    """Has a handler that waits, and one that does not."""

    async def line_added(self, state: Lines, event: AnyEvent) -> Lines:  # type: ignore[override]
        await asyncio.sleep(0)
        return state | {event.payload: 1}

    @handles("failed")
    async def fail(self, state: Lines, event: AnyEvent) -> Lines:
        await asyncio.sleep(0)
        raise ZeroDivisionError


class TestAsyncHandlers:
    async def test_coroutine_functions_are_awaited_one_after_another(self) -> None:
        projection = await AsyncProjector().project(source=GivenEvents(*ORDER_EVENTS))

        assert (projection.state, projection.metadata) == ({"jam": 1}, [1, 2, 0, 1])

    async def test_what_they_raise_has_the_note_too(self) -> None:
        with pytest.raises(ZeroDivisionError) as caught:
            await AsyncProjector().project(source=GivenEvents(stored("failed", position=7)))

        assert "projector 'async' was at event 'failed'" in caught.value.__notes__[0]

    async def test_functions_that_return_a_coroutine_are_awaited(self) -> None:
        class P(AnyStateProjector):
            def replaced(self, state: Any, event: AnyEvent) -> Any:
                async def later() -> Any:
                    return event.payload

                return later()

        projection = await P().project(source=GivenEvents(stored("replaced", 3)))

        assert projection.state == 3

    def test_project_sync_refuses_them_and_says_what_to_call(self) -> None:
        source = SyncGivenEvents(stored("line-added", "tea"))

        with pytest.raises(
            ConfigurationError, match=r"AsyncProjector\.line_added is a coroutine .* `await .*project\("
        ):
            AsyncProjector().project_sync(source=source)

    def test_apply_refuses_them_and_says_what_to_call(self) -> None:
        with pytest.raises(
            ConfigurationError, match=r"AsyncProjector\.line_added is a coroutine .* `await .*project\("
        ):
            AsyncProjector().apply(event=stored("line-added", "tea"))


class TestNames:
    @in_turn(
        "class_name, expected",
        [
            ("OrderProjector", "order"),
            ("OrderSummaryProjector", "order-summary"),
            ("HTTPOrderV2Projector", "http-order-v2"),
            ("OrderProjectorV2", "order-v2"),
            ("Orders", "orders"),
            ("Projector", "projector"),
            ("_OrderProjector", "order"),
            ("ÜbersichtProjector", "übersicht"),
        ],
    )
    def test_the_name_is_that_of_the_class_without_projector_in_kebab_case(
        self, class_name: str, expected: str
    ) -> None:
        projector: type[AnyProjector] = type(class_name, (OrderProjector,), {})

        assert projector.name == expected
        assert projector().name == expected

    async def test_a_name_can_be_given_to_the_class(self, project: Project) -> None:
        class P(OrderProjector):
            name = "given"

        class Child(P):
            pass

        assert (await project(P(), [])).name == "given"
        assert (await project(Child(), [])).name == "given"

    async def test_a_name_can_be_given_by_a_property(self, project: Project) -> None:
        class P(OrderProjector):
            @property
            def name(self) -> str:  # type: ignore[override]
                return "computed"

        assert (await project(P(), [])).name == "computed"

    async def test_a_name_can_be_given_to_an_instance(self, project: Project) -> None:
        class P(OrderProjector):
            def __init__(self, name: str) -> None:
                self.name = name

        assert (await project(P("of-the-instance"), [])).name == "of-the-instance"
        assert P.name == "p"
