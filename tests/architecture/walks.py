"""How far a call walks through the package: `python -m tests.architecture.walks`.

Each call is made twice, so that statements are built and connections open, and then once with a profile hook that notes
the file of every function of the package that is entered. Of each walk are printed

- files: how many different files are entered;
- hops: how often a file is entered from another one;
- returns: how many of the hops lead to a file that was entered before;
- climbs: from which file to which one of a higher layer a call goes, where there is any.

The figures are to be looked at before and after a change of the structure. No test fails because of them, but for a climb
to anything else than a projection (`test_layers.py`).
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from eventstore_sa import NewEvent, Projector, StoredEvent, StreamIdentifier, SyncEventStore, configure_sqlite
from eventstore_sa.projection import SyncProjectionStore
from eventstore_sa.query import FilterClause, Operator
from eventstore_sa.query import Path as FieldPath
from tests.project import PACKAGE, ROOT

_STREAM: Final = StreamIdentifier("orders", "1")


class Walk(Struct):
    """The files that a call has entered, in order, and who called whom upwards."""

    files: list[str]
    climbs: dict[str, None]

    def described(self) -> str:
        """Return the figures as a line."""
        different = len(set(self.files))
        line = f"{different:5} {len(self.files):6} {len(self.files) - different:8}"
        return "\n".join([line, *(f"{'':25}climbs: {climb}" for climb in self.climbs)])


class OrderProjector(Projector[StreamIdentifier, dict[str, Any], None]):
    def initial_state_factory(self) -> dict[str, Any]:
        return {"total": 0}

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: dict[str, Any], source: StreamIdentifier) -> str:
        return source.stream

    def item_added(self, state: dict[str, Any], event: StoredEvent[str, dict[str, int]]) -> dict[str, Any]:
        return {"total": state["total"] + event.payload["price"]}


def layers() -> dict[str, int]:
    """Return the height of each part of the package: its layer in the import contracts, and that of a folder in it."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    heights: dict[str, int] = {}
    for contract in contracts:
        if contract["type"] == "layers":
            (container,) = contract["containers"]
            for height, layer in enumerate(reversed(contract["layers"])):
                for part in layer.replace("(", "").replace(")", "").split("|"):
                    folders = [*container.split(".")[1:], part.strip()]
                    heights["/".join(folders)] = height
    return heights


def walk(call: Callable[[], object]) -> Walk:
    """Make a call, and return where it went."""
    call()
    call()
    found = Walk([], {})
    heights = layers()

    def look(frame: FrameType, event: str, _argument: object) -> None:
        file = _file(frame)
        if event != "call" or file is None:
            return
        if not found.files or found.files[-1] != file:
            found.files.append(file)
        caller = next(filter(None, map(_file, _callers(frame))), None)
        if caller is not None and _climbs(caller, file, heights):
            found.climbs[f"{caller} -> {file}"] = None

    sys.setprofile(look)
    try:
        call()
    finally:
        sys.setprofile(None)
    return found


def _callers(frame: FrameType) -> Iterator[FrameType]:
    caller = frame.f_back
    while caller is not None:
        yield caller
        caller = caller.f_back


def _file(frame: FrameType) -> str | None:
    path = Path(frame.f_code.co_filename)
    return str(path.relative_to(PACKAGE)) if path.is_relative_to(PACKAGE) else None


def _climbs(caller: str, file: str, heights: dict[str, int]) -> bool:
    for depth in (1, 2):
        places = ["/".join(Path(path).with_suffix("").parts[:depth]) for path in (caller, file)]
        if places[0] != places[1]:
            return all(place in heights for place in places) and heights[places[0]] < heights[places[1]]
    return False


def calls(url: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the calls that are looked at, with their names."""
    engine = create_engine(url, **({"poolclass": StaticPool} if url == "sqlite://" else {}))
    configure_sqlite(engine)
    store = SyncEventStore(engine)
    store.drop_schema()
    store.create_schema()
    projections = SyncProjectionStore(engine)
    inline = store.with_projections(OrderProjector())
    stream = store.stream(category="orders", stream="1")
    added = [NewEvent(name="item-added", payload={"price": 1}) for _ in range(40)]
    events = iter(added)

    def stage() -> None:
        with Session(engine) as session, session.begin():
            store.within(session).stream(category="orders", stream="2").stage(events=[next(events)])

    yield "publish", lambda: stream.publish(events=[next(events)])
    yield "stage to commit", stage
    yield "iterate the log", lambda: list(store.log().iterate())
    yield (
        "publish, inline projection",
        lambda: inline.stream(category="orders", stream="3").publish(events=[next(events)]),
    )
    total = FilterClause(Operator.GREATER_THAN, FieldPath("state", "total"), 0)
    yield "search", lambda: projections.search(filters=[total])
    projection = next(iter(projections.iterate()))
    yield "save a projection", lambda: projections.save(projection=projection)
    engine.dispose()


def main() -> None:
    """Print the walks."""
    parser = argparse.ArgumentParser(prog="python -m tests.architecture.walks", description=__doc__)
    parser.add_argument("--url", default="sqlite://", help="a database whose event store may be dropped")
    parser.add_argument("--files", action="store_true", help="also list the files of each walk, in order")
    arguments = parser.parse_args()
    print(f"{'':28}files   hops  returns")
    for name, call in calls(arguments.url):
        found = walk(call)
        print(f"{name:28}{found.described()}")
        if arguments.files:
            print(*(f"    {file}" for file in found.files), sep="\n")


if __name__ == "__main__":
    main()
