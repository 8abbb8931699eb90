"""How JSON is shown: as a bounded tree, without what is hidden, and with nothing in it that cannot be seen."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from eventstore_sa.browser.difference import Change, differences
from eventstore_sa.browser.json_text import parsed
from eventstore_sa.browser.redaction import HIDDEN, Redaction
from eventstore_sa.browser.text import duration, printable, visible
from eventstore_sa.browser.tree import NO_SUCH_PLACE, place_of_text, preview, text_of_place, tree, walk_to
from eventstore_sa.errors import ConfigurationError, SerialisationError
from eventstore_sa.testing.cases.tables import in_turn

NOTHING = Redaction(None)


def shown(value: Any, redaction: Redaction = NOTHING) -> str:
    return str(tree(value, redaction=redaction, links=lambda place, start: f"?at={text_of_place(place)}&start={start}"))


def deep(levels: int) -> str:
    return '{"a":[' * (levels // 2) + "1" + "]}" * (levels // 2)


LARGE: dict[str, Any] = {
    "wide object": {str(number): number for number in range(100_000)},
    "wide array": list(range(100_000)),
    "long text": "x" * 10_000_000,
    "long keys": {f"{number}{'k' * 10_000}": 1 for number in range(100)},
    "deep": parsed(deep(3_000)),
    "many of many": [[[number] * 100] * 100 for number in range(100)],
}


@in_turn("value", LARGE)
def test_a_tree_is_small_whatever_it_shows_and_leads_to_the_rest(value: Any) -> None:
    page = shown(value)

    assert len(page) < 700_000
    assert "more of" in page or "deeper" in page or " more</a>" in page or "kkk…" in page


@in_turn("value", LARGE)
def test_a_preview_is_short_whatever_it_shows(value: Any) -> None:
    assert len(preview(value, NOTHING)) <= 160


def test_links_lead_to_what_a_tree_leaves_out() -> None:
    value = {"a": 1, "b": [{"text": "y" * 5_000}, *range(500)]}
    (rest,) = re.findall(r'href="\?at=([\d.]*)&amp;start=(\d+)"[^>]*>… \d+ more of', shown(value))

    path, found = walk_to(value, place_of_text(rest[0]) or (), NOTHING)

    assert (path, found, int(rest[1])) == (("b",), value["b"], 100)
    assert walk_to(value, (1, 0, 0), NOTHING) == (("b", 0, "text"), "y" * 5_000)
    assert walk_to(value, (7,), NOTHING)[1] is NO_SUCH_PLACE
    assert walk_to(value, (0, 0), NOTHING)[1] is NO_SUCH_PLACE


@in_turn("text", ["x", "-1", "1..2", "1.", "٣", "1" * 11, "0x1"])
def test_what_is_no_place_is_refused(text: str) -> None:
    assert place_of_text(text) is None


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</td></table></template></svg><script>",
    "javascript:alert(1)",
    "&lt;script&gt; &amp;",
    "a\u202egnp.exe",
    "\u2066\u2069\u200f\u200b\ufeff\u00ad\x00\x1b[31m\u2028",
    "\U000e0041\U000e0042",
    "{{ 7*7 }} ${7*7} <%= 7*7 %>",
]


@in_turn("text", HOSTILE)
def test_whatever_a_text_holds_it_is_text_on_the_page(text: str) -> None:
    for page in (
        shown({text: text}),
        shown([text]),
        shown(text),
        str(visible(text)),
        str(visible(preview(text, NOTHING))),
    ):
        assert not re.search(r"<(?!/?(div|ul|li|span|bdi|details|summary|a)\b)", page)
        assert not re.search("[\x00-\x09\x0b-\x1f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\U000e0041]", page)
        assert not re.search(r"<[^>]* on\w+=", page.replace("&#39;", "").replace("&#34;", ""))


def test_characters_that_cannot_be_seen_are_named() -> None:
    assert 'title="U+202E"' in str(visible("a\u202eb"))
    assert printable("a\u202eb\n", 10) == "a<202E>b<000A>"
    assert str(visible("naïve 🎉 ß")) == "<bdi>naïve 🎉 ß</bdi>"


JSON_TEXTS = [
    "1",
    "-0.5e3",
    '"a\\n\\u00e9"',
    "[]",
    "{}",
    ' [ 1 , {"a" : [null, true, false] } , "]}" ] ',
    '[[],[[]],{"":{}}]',
]


@in_turn("text", JSON_TEXTS)
def test_deep_json_is_read_like_any_other(text: str) -> None:
    nested = "[" * 2_000 + text + "]" * 2_000

    value = parsed(nested)

    for _ in range(2_000):
        (value,) = value
    assert value == json.loads(text)


@in_turn(
    "text",
    ["[" * 3_000, "[" * 3_000 + "}" * 3_000, "[" * 3_000 + "1 1" + "]" * 3_000, "[" * 3_000 + "{1:2}" + "]" * 3_000],
)
def test_deep_text_that_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(SerialisationError):
        parsed(text)


def test_names_hide_fields_wherever_they_are() -> None:
    redaction = Redaction(["password", "card.number"])
    value = {"Password": "s1", "user": [{"password": {"is": "s2"}}], "card": {"number": "s3", "name": "n"}, "number": 4}

    hidden = redaction.applied(value)

    assert hidden == {
        "Password": HIDDEN,
        "user": [{"password": HIDDEN}],
        "card": {"number": HIDDEN, "name": "n"},
        "number": 4,
    }
    for page in (shown(value, redaction), preview(value, redaction, 1_000)):
        assert "s1" not in page
        assert "s2" not in page
        assert "s3" not in page
    assert value["Password"] == "s1"
    assert walk_to(value, (1, 0, 0, 0), redaction)[1] is NO_SUCH_PLACE


def test_a_name_with_dots_hides_the_field_of_that_name_too() -> None:
    redaction = Redaction(["card.number"])

    value = {"card.number": 1, "a": {"Card.Number": 2}, "discard.number": 3, "number": 4}

    assert redaction.applied(value) == {
        "card.number": HIDDEN,
        "a": {"Card.Number": HIDDEN},
        "discard.number": 3,
        "number": 4,
    }


def test_a_function_hides_values_by_path_and_content() -> None:
    redaction = Redaction(lambda path, value: isinstance(value, str) and "@" in value)

    assert redaction.applied({"a": ["x@y", "z"]}) == {"a": [HIDDEN, "z"]}
    assert "x@y" not in shown({"a": ["x@y"]}, redaction)


def test_deep_values_are_redacted_without_recursion() -> None:
    hidden = Redaction(["b"]).applied(parsed(deep(3_000)))

    assert "a" in hidden


@in_turn("given", ["password", 7, [1], [""]])
def test_what_cannot_be_redacted_by_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="redact takes the names of fields"):
        Redaction(given)


DIFFERENCES: dict[str, tuple[Any, Any, list[tuple[str, tuple[str | int, ...], Any]]]] = {
    "same": ({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}, []),
    "other order": ({"a": 1, "b": 2}, {"b": 2, "a": 1}, []),
    "member": ({"a": 1, "b": 2}, {"a": 1, "c": 3}, [("removed", ("b",), 2), ("added", ("c",), 3)]),
    "value": ({"a": {"b": 1}}, {"a": {"b": 2}}, [("removed", ("a", "b"), 1), ("added", ("a", "b"), 2)]),
    "appended": ([1, 2], [1, 2, 3], [("added", (2,), 3)]),
    "inserted": ([1, 2], [0, 1, 2], [("added", (0,), 0)]),
    "removed item": ([1, 2, 3], [1, 3], [("removed", (1,), 2)]),
    "item": ([{"a": 1}, {"a": 2}], [{"a": 1}, {"a": 3}], [("removed", (1, "a"), 2), ("added", (1, "a"), 3)]),
    "kinds": (1, True, [("removed", (), 1), ("added", (), True)]),
    "number forms": (1, 1.0, [("removed", (), 1), ("added", (), 1.0)]),
    "nested kinds": ([[1], [2]], [[True], [2]], [("removed", (0, 0), 1), ("added", (0, 0), True)]),
    "from nothing": (None, {"a": 1}, [("removed", (), None), ("added", (), {"a": 1})]),
}


@in_turn("case", DIFFERENCES)
def test_differences_are_what_was_removed_and_added(case: tuple[Any, Any, list[Any]]) -> None:
    before, after, expected = case

    assert list(differences(before, after)) == [Change(*each) for each in expected]


@in_turn("case", {"0 ms": 0, "1 s": 1, "1 min 1 s": 61, "2 h": 7200.2, "1 d 1 h": 90_000, "0 ms ": -5})
def test_durations_are_readable(case: float) -> None:
    expected = {0: "0 ms", 1: "1 s", 61: "1 min 1 s", 7200.2: "2 h", 90_000: "1 d 1 h", -5: "0 ms"}

    assert duration(case) == expected[case]
