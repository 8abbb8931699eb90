"""Outcomes as a table for the terminal, and as the page RESULTS.md."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from statistics import median

from benchmarks.contenders import PEERS
from benchmarks.contenders.contender import Contender
from benchmarks.contenders.raw import RawDriver
from benchmarks.harness import Outcome

__all__ = ["page", "table"]

_VERDICTS = {"": "", "OK": "reached", "BELOW": "missed", "ABOVE": "missed"}


def table(outcomes: Iterable[Outcome], *, judged: bool) -> str:
    """Lay the outcomes out: medians, processor time in microseconds, and the median ratio with its range."""
    rows: list[tuple[str, ...]] = [("", "", "", "", "client us", "server us", "ratio", "(range)", "")]
    for outcome in outcomes:
        workload = outcome.workload
        rows.append((workload.name, workload.title, "", "", "", "", "", "", outcome.verdict if judged else ""))
        for side in outcome.figures:
            ratios = outcome.ratios(side) if side != outcome.ours else []
            bound = f"floor {workload.floor}" if workload.floor is not None and side == workload.mark else ""
            client, server = outcome.processor_us(side)
            rows.append(
                (
                    "",
                    f"  {side}",
                    f"{outcome.middle(side):,.0f}",
                    workload.unit,
                    _number(client),
                    _number(server),
                    f"{median(ratios):.2f}" if ratios else "",
                    _range(ratios) and f"({_range(ratios)})",
                    bound,
                )
            )
        rows += [("", f"  {side}", "", failure, "", "", "", "", "") for side, failure in outcome.failures.items()]
    words = {0, 1, 3, 7, 8}
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column in words else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def page(outcomes: Sequence[Outcome], *, circumstances: str, note: str) -> str:
    """Write the page of results."""
    parts = [
        "# Results",
        "",
        "Written by `make bench`. [performance.md](../docs/performance.md#how-it-is-measured) describes how it measures.",
        *(["", f"**{note}**"] if note else []),
        "",
        circumstances,
        "",
        "All sides take turns in one run on one server. A ratio is ours divided by the other side in the same round, the",
        "median of the rounds with their range: above 1, this library is faster. Absolute figures belong to this machine.",
        "",
        "![Rates by workload](rates.svg)",
        "",
        *_summary(outcomes),
        "",
        "![Rates by the length of the log](growth.svg)",
        "",
        "## Each workload",
        "",
        "Processor time is that of a unit of work, in microseconds: of this process, and of all processes of the server,",
        "those that write in the background included.",
        *(line for outcome in outcomes for line in _details(outcome)),
        "",
        "## What is compared",
        "",
        *_contenders(),
        "",
    ]
    return "\n".join(parts)


def _summary(outcomes: Sequence[Outcome]) -> list[str]:
    lines = [
        "| | Work | Ours | Mark | Ratio to it | Floor (aim) | | Best peer | Ratio to it |",
        "|---|---|---:|---|---:|---:|---|---|---:|",
    ]
    peers = {contender.name for peer in PEERS.values() if peer.missing is None for contender in peer.classes()}
    for outcome in outcomes:
        workload, ratios = outcome.workload, outcome.ratios()
        if not ratios:
            continue
        bound = f"{workload.floor}" if workload.floor is not None else ""
        bound += f" ({workload.aim})" if workload.aim is not None else ""
        if workload.ceiling is not None:
            bound = f"at most {workload.ceiling}"
        lines.append(
            f"| {workload.name} | {workload.title} | {outcome.middle(outcome.ours):,.0f} {workload.unit} "
            f"| {workload.mark}: {outcome.middle(workload.mark):,.0f} | {median(ratios):.2f} ({_range(ratios)}) "
            f"| {bound} | {_VERDICTS[outcome.verdict]} | {_best(outcome, peers)} |"
        )
    return lines


def _best(outcome: Outcome, peers: Collection[str]) -> str:
    """Return the cells of the best peer."""
    taking_part = [side for side in outcome.figures if side in peers]
    if not taking_part:
        return "|"
    best = max(taking_part, key=outcome.middle)
    ratios = outcome.ratios(best)
    return f"{best}: {outcome.middle(best):,.0f} | {median(ratios):.2f} ({_range(ratios)})"


def _details(outcome: Outcome) -> list[str]:
    workload = outcome.workload
    lines = [
        "",
        f"### {workload.name}: {workload.title}",
        "",
        f"| | {workload.unit} | Ours against it | Client, µs | Server, µs |",
        "|---|---:|---:|---:|---:|",
    ]
    for side in outcome.figures:
        ratios = outcome.ratios(side)
        client, server = outcome.processor_us(side)
        compared = "" if side == outcome.ours else f"{median(ratios):.2f} ({_range(ratios)})"
        lines.append(f"| {side} | {outcome.middle(side):,.0f} | {compared} | {_number(client)} | {_number(server)} |")
    lines += [f"| {side} | failed: {failure} | | | |" for side, failure in outcome.failures.items()]
    return lines


def _contenders() -> list[str]:
    lines = ["| | Version | Set up as | What it gives up |", "|---|---|---|---|", _row(RawDriver, _version("asyncpg"))]
    missing: list[str] = []
    for name, peer in PEERS.items():
        if peer.missing is None:
            lines += [_row(contender, _version(*peer.distributions)) for contender in peer.classes()]
        else:
            missing.append(f"- {name}: {peer.missing}.")
    if missing:
        lines += ["", "Left out:", "", *missing]
    return lines


def _row(contender: type[Contender], installed: str) -> str:
    return f"| {contender.name} | {installed} | {contender.setup} | {contender.gives_up} |"


def _version(*distributions: str) -> str:
    try:
        return version(distributions[0]) if distributions else ""
    except PackageNotFoundError:
        return ""


def _number(microseconds: float | None) -> str:
    if microseconds is None:
        return "-"
    return f"{microseconds:,.0f}" if microseconds >= 100 else f"{microseconds:.1f}"


def _range(ratios: Sequence[float]) -> str:
    return f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else ""
