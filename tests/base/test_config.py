"""Settings: precedence, types, and errors that name the nearest right key."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeweft.base.config import Layer, build, parse_overrides, plain, read_recipe, settings, to_toml
from codeweft.base.errors import ConfigError, UsageError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5  # how much
    name: str = "a"


@dataclass(frozen=True)
class Outer:
    count: int = 1  # how many
    inner: Inner = field(default_factory=Inner)
    paths: tuple[str, ...] = ()
    mode: Literal["fast", "slow"] = "fast"
    init: Path | None = None
    flag: bool = False


def test_later_layers_win_key_by_key_inside_nested_tables():
    layers = [Layer("one", {"count": 2, "inner": {"rate": 0.1, "name": "b"}}), Layer("two", {"inner": {"rate": 0.9}})]
    assert build(Outer, layers, "outer") == Outer(count=2, inner=Inner(0.9, "b"))


def test_command_line_strings_become_the_fields_types():
    words = ["--outer.count=1_000", "--outer.inner.rate", "1e-3", "--outer.paths=a,b", "--outer.flag=true"]
    layer = parse_overrides([*words, "--outer.init=/x", "--outer.mode=slow"], ["outer"]).section("outer")
    assert build(Outer, [layer], "outer") == Outer(1000, Inner(0.001), ("a", "b"), "slow", Path("/x"), True)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"cuont": 1}, "recipe r.toml, [outer] cuont: no such setting. Did you mean count?"),
        ({"inner": {"rat": 1}}, "[outer.inner] rat: no such setting. Did you mean rate?"),
        ({"count": 1.5}, "expected int, got 1.5"),
        ({"count": "many"}, "expected int, got 'many'"),
        ({"flag": "yes"}, "expected bool, got 'yes'"),
        ({"mode": "fastt"}, "'fastt' is not a choice. Did you mean fast?"),
        ({"inner": 3}, "expected Inner, got 3"),
        ({"count": "inf"}, "expected int, got 'inf'"),
        ({"count": "nan"}, "expected int, got 'nan'"),
        ({"paths": "[a,b]"}, "[a,b] is not a list"),
    ],
)
def test_a_wrong_setting_is_told_with_its_place_and_the_next_step(values: dict, expected: str):
    with pytest.raises(ConfigError) as caught:
        build(Outer, [Layer("recipe r.toml", values)], "outer")
    assert expected in str(caught.value)


def test_an_unknown_section_on_the_command_line_names_the_nearest():
    with pytest.raises(UsageError, match=r"there is no section tokns\. Did you mean tokens"):
        parse_overrides(["--tokns.total=3"], ["tokens", "corpus"])


def test_a_recipe_extends_another_and_wins_over_it(tmp_path: Path):
    (tmp_path / "mine.toml").write_text('extends = "toy"\n[tokens]\ntotal = 7\n')
    layers = read_recipe(str(tmp_path / "mine.toml"))
    assert [layer.origin for layer in layers] == ["recipe toy.toml", "recipe mine.toml"]
    with pytest.raises(ConfigError, match="Did you mean toy"):
        read_recipe("toyy")


def test_recipes_that_extend_each_other_in_a_circle_are_refused(tmp_path: Path):
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text(f'extends = "{two}"')
    two.write_text(f'extends = "{one}"')
    with pytest.raises(ConfigError, match="extends itself"):
        read_recipe(str(one))
    one.write_text("extends = 5")
    with pytest.raises(ConfigError, match="is not a recipe"):
        read_recipe(str(one))


def test_a_table_cannot_also_be_a_value():
    with pytest.raises(UsageError, match="was given a value before"):
        parse_overrides(["--outer.inner=5", "--outer.inner.rate=3"], ["outer"])


def test_long_whole_numbers_are_not_rounded():
    assert build(Outer, [Layer("x", {"count": "9007199254740993"})], "outer").count == 9007199254740993
    assert build(Outer, [Layer("x", {"count": "1e6"})], "outer").count == 1_000_000


def test_help_text_is_the_comment_behind_the_field():
    shown = {setting.name: (setting.default, setting.purpose) for setting in settings(Outer, "outer")}
    assert shown["--outer.count"] == ("1", "how many")
    assert shown["--outer.inner.rate"] == ("0.5", "how much")


@given(
    st.builds(
        Outer,
        st.integers(-(2**53), 2**53),
        st.builds(
            Inner,
            st.floats(allow_nan=False, allow_infinity=False),
            st.text(st.characters(codec="utf-8", exclude_characters="\0")),
        ),
        st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"))).map(tuple),
    )
)
def test_a_written_recipe_reads_back_as_the_same_configuration(config: Outer):
    import tomllib

    text = to_toml({"outer": plain(config)})
    assert build(Outer, [Layer("file", tomllib.loads(text)["outer"])], "outer") == config


def test_keys_of_any_text_are_read_back_from_the_written_recipe():
    values = {"weights": {"my file.v2": 0.5, "plain": 2.0, 'a "quoted" one': 1.0}}
    assert tomllib.loads(to_toml(values)) == values
