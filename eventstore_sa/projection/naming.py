"""How names are compared across conventions: event names with handler names, class names with projection names.

A name is split into words, at whatever cannot be part of an identifier and where its case changes, and the words are joined
again. Nothing here knows events, handlers or projectors.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import lru_cache

__all__ = ["NameOfClass", "kebab_case", "snake_case"]

# Applications have tens of classes.
_REMEMBERED_NAMES = 1024


class NameOfClass:
    """A default for the attribute `name`: that of the class in kebab-case; any other definition takes precedence.

    Args:
        shorten: Cuts off what all such classes are called; a name of which nothing is left is not shortened.
    """

    def __init__(self, shorten: Callable[[str], str]) -> None:
        @lru_cache(maxsize=_REMEMBERED_NAMES)
        def name_of(class_name: str) -> str:
            return kebab_case(shorten(class_name)) or kebab_case(class_name)

        self._name_of = name_of

    def __get__(self, instance: object, owner: type) -> str:
        return self._name_of(owner.__name__)


def snake_case(name: str) -> str:
    """Return the words of `name` in lower case, joined by underscores.

    Kebab-case, camelCase, PascalCase, UPPER CASE, spaces, dots and any other punctuation give the same result. An acronym
    is one word; digits belong to the word before them. Applying the function to its result changes nothing, and the result
    is what Python makes of an identifier with those letters (NFKC). A name without any letter or digit gives "".

    Examples:
        >>> (
        ...     snake_case("order-placed"),
        ...     snake_case("OrderPlaced"),
        ...     snake_case("ORDER PLACED"),
        ...     snake_case("orders.Placed"),
        ... )
        ('order_placed', 'order_placed', 'order_placed', 'orders_placed')
        >>> snake_case("HTTPRequestFailed"), snake_case("OrderV2Placed"), snake_case("ISO8601DateRead")
        ('http_request_failed', 'order_v2_placed', 'iso8601_date_read')
    """
    return "_".join(_words(name))


def kebab_case(name: str) -> str:
    """Return the words of `name`, which are those of `snake_case`, in lower case, joined by hyphens.

    Examples:
        >>> kebab_case("HTTPOrderV2")
        'http-order-v2'
    """
    return "-".join(_words(name))


def _words(name: str) -> list[str]:
    # Normal form before and after: "H" with a line below it is one character only when it is small.
    words = [
        unicodedata.normalize("NFKC", word.lower())
        for chunk in _chunks(unicodedata.normalize("NFKC", name))
        for word in _split_at_case(chunk)
    ]
    return [word for word in words if word]


def _chunks(text: str) -> list[str]:
    """Split at all characters that no identifier can hold, and at underscores."""
    # ("a" + c) is an identifier exactly for letters, digits, underscores and the marks that scripts put on letters.
    kept = (c if c != "_" and ("a" + c).isidentifier() else " " for c in text)
    return "".join(kept).split(" ")


def _split_at_case(chunk: str) -> list[str]:
    """Split before a capital that follows a small letter, and before the last capital of an acronym.

    Digits and letters without case count as the letter before them, so that "V2Placed" has two words and "V2" has one.
    """
    words: list[str] = []
    begin = 0
    after_small = after_capital = False
    for i, character in enumerate(chunk):
        if character.isupper():
            begins_word = chunk[i + 1 : i + 2].islower()
            if after_small or (after_capital and begins_word):
                words.append(chunk[begin:i])
                begin = i
            after_small, after_capital = False, True
        elif character.islower():
            after_small, after_capital = True, False
    words.append(chunk[begin:])
    return words
