"""Names of events and classes in snake_case and kebab-case."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from eventstore_sa.projection.naming import kebab_case, snake_case
from eventstore_sa.testing.cases.tables import in_turn


@in_turn(
    "name",
    [
        "order-placed",
        "order_placed",
        "orderPlaced",
        "OrderPlaced",
        "order placed",
        "Order Placed",
        "order.placed",
        "ORDER_PLACED",
        "ORDER-PLACED",
        "ORDER PLACED",
        "order/placed",
        "order: placed!",
        "  order  --  placed  ",
        "__order__placed__",
        "Order-Placed",
        "order\tplaced\n",
        "order\N{NO-BREAK SPACE}placed",
        "order\N{EN DASH}placed",
        "\N{FULLWIDTH LATIN SMALL LETTER O}rder placed",
    ],
)
def test_one_event_name_in_any_convention_comes_to_one_handler_name(name: str) -> None:
    assert snake_case(name) == "order_placed"


@in_turn(
    "name, expected",
    [
        ("HTTPRequestFailed", "http_request_failed"),
        ("XMLHttpRequest", "xml_http_request"),
        ("RequestViaHTTP", "request_via_http"),
        ("getURLFor", "get_url_for"),
        ("aBCd", "a_b_cd"),
        ("A", "a"),
    ],
)
def test_an_acronym_is_one_word(name: str, expected: str) -> None:
    assert snake_case(name) == expected


@in_turn(
    "name, expected",
    [
        ("OrderV2Placed", "order_v2_placed"),
        ("order-v2-placed", "order_v2_placed"),
        ("order2Placed", "order2_placed"),
        ("order-2-placed", "order_2_placed"),
        ("ISO8601DateRead", "iso8601_date_read"),
        ("ORDER2PLACED", "order2placed"),
        ("V2", "v2"),
        ("2faEnabled", "2fa_enabled"),
        ("42", "42"),
    ],
)
def test_digits_belong_to_the_word_before_them(name: str, expected: str) -> None:
    assert snake_case(name) == expected


@in_turn(
    "name, expected",
    [
        ("ÜberweisungAusgeführt", "überweisung_ausgeführt"),
        ("U\N{COMBINING DIAERESIS}ber-fällig", "über_fällig"),
        ("HTTPU\N{COMBINING DIAERESIS}bertragen", "http_übertragen"),
        ("ЗаказОформлен", "заказ_оформлен"),
        ("注文-確定", "注文_確定"),
        ("ऑर्डर-दिया", "ऑर्डर_दिया"),
        ("order-\N{PARTY POPPER}-placed", "order_placed"),
    ],
)
def test_letters_of_all_scripts_are_kept(name: str, expected: str) -> None:
    assert snake_case(name) == expected


@in_turn("name", ["", " ", "---", "\N{PARTY POPPER}", "_"])
def test_a_name_without_letters_comes_to_nothing(name: str) -> None:
    assert snake_case(name) == ""


@given(st.text())
@example("H\N{COMBINING MACRON BELOW}")  # one character only when small
def test_a_handler_name_is_its_own_handler_name(name: str) -> None:
    once = snake_case(name)

    assert snake_case(once) == once


@given(st.text())
def test_a_handler_name_has_nothing_that_no_method_name_can_have(name: str) -> None:
    assert f"on_{snake_case(name)}".isidentifier()


@given(st.text())
def test_both_cases_have_the_same_words(name: str) -> None:
    assert kebab_case(name).split("-") == snake_case(name).split("_")


def test_kebab_case_of_a_class_name() -> None:
    assert kebab_case("HTTPOrderV2") == "http-order-v2"
