"""What a value on the command line is read as: nothing becomes another value without a word."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from disco_zoo.core.yaml_io import dump_yaml, read_value, read_yaml
from disco_zoo.errors import BadRecipe


@pytest.mark.parametrize(
    "text", ["010", "1:30", "1:30.5", "2024-13-45", "2024-01-05", "0b_", "!!timestamp x", "!!int x"]
)
def test_what_other_yaml_takes_for_octal_sexagesimal_or_a_date_stays_text(text: str) -> None:
    assert read_value(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("-1_000", -1000), ("0x1F", 31), ("0b11", 3), ("0", 0), ("1e-4", 1e-4), ("1.5", 1.5), ("-.5", -0.5)],
)
def test_numbers_are_numbers(text: str, value: float) -> None:
    found = read_value(text)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("text", ["/photos #2", "#2", "0.1 # a tenth"])
def test_what_looks_like_a_comment_is_not_dropped(text: str) -> None:
    assert read_value(text) == text
    assert read_value(f"'{text}'") == text


def test_a_value_that_does_not_fit_its_tag_is_no_yaml() -> None:
    with pytest.raises(yaml.YAMLError, match="a value does not fit its tag"):
        read_yaml("a: !!timestamp x")


def test_no_key_of_a_value_is_lost() -> None:
    with pytest.raises(BadRecipe, match=r"^\{a: 1, b: \{a: 2, a: 3\}\}: key 'a' appears twice"):
        read_value("{a: 1, b: {a: 2, a: 3}}")


def test_what_is_written_is_read_as_it_was() -> None:
    values: dict[str, Any] = {"a": "010", "b": "1:30", "c": 1e-4, "d": "2024-01-05", "e": "1e-4", "f": [1, 2.0, True]}
    assert read_yaml(dump_yaml(values)) == (values, [])
