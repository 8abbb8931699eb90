"""The public API is the one that tests/api.txt describes."""

from __future__ import annotations

import difflib

from tests.api import SNAPSHOT, public_api


def test_public_api_is_as_recorded() -> None:
    recorded = SNAPSHOT.read_text(encoding="utf-8")

    changes = difflib.unified_diff(
        recorded.splitlines(), public_api().splitlines(), "recorded", "now", lineterm="", n=0
    )

    assert list(changes) == [], (
        "the public API has changed: if that is meant, run `make api` and say so in CHANGELOG.md"
    )
