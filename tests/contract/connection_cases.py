"""The groups of shipped cases for a driver whose database passes all groups with another driver."""

from __future__ import annotations

from eventstore_sa.testing.cases.concurrency import ConcurrencyCases
from eventstore_sa.testing.cases.conditions import ConditionCases
from eventstore_sa.testing.cases.publishing import PublishingCases
from eventstore_sa.testing.cases.reading import ReadingCases
from eventstore_sa.testing.cases.repetition import RepetitionCases

__all__ = ["ConnectionCases"]


class ConnectionCases(ReadingCases, PublishingCases, ConditionCases, RepetitionCases, ConcurrencyCases):
    """The groups in which it matters how connections are used; the others are about values, statements and errors."""

    thorough = False
