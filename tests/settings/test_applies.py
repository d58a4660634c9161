"""When a setting matters is declared beside it."""
from __future__ import annotations

import pytest

from lib_sdtrain.settings.applies import When, applies, when
from lib_sdtrain.settings.fields import declared
from lib_sdtrain.settings.run import Concept, RunSettings

SETTINGS = {item.path: item for item in declared(RunSettings)}
OWN = {item.path: item for item in declared(Concept)}
CONDITIONS = [(item.path, condition) for item in SETTINGS.values() for condition in item.meta.applies]
BESIDE = [(item.path, condition) for item in OWN.values() for condition in item.meta.applies]


@pytest.mark.parametrize(("condition", "values", "holds"), [
    (when("a"), {"a": True}, True), (when("a"), {"a": False}, False), (when("a"), {"a": " "}, False),
    (when("a"), {"a": None}, False), (when("a"), {"a": 0.0}, False), (when("a"), {"a": 0.5}, True),
    (when("a"), {"a": "0"}, True),  # an optional number, or a word
    (when("a", "x", "y"), {"a": "y"}, True), (when("a", "x", "y"), {"a": "z"}, False),
    (when("a") | when("b"), {"a": "", "b": 3}, True), (when("a") | when("b"), {"a": "", "b": 0}, False),
    (when("a", "x") | when("b", "x"), {"a": "y", "b": "x"}, True),
])  # fmt: skip
def test_a_setting_is_on_or_has_one_of_the_values(condition, values, holds):
    assert condition.holds(values.__getitem__) == holds


def test_all_conditions_must_hold():
    both = (when("a"), when("b", "x"))
    assert applies(both, {"a": 1, "b": "x"}.__getitem__)
    assert not applies(both, {"a": 1, "b": "y"}.__getitem__)
    assert applies((), {}.__getitem__)


@pytest.mark.parametrize(("path", "condition"), CONDITIONS + BESIDE)
def test_conditions_name_settings_and_values_that_there_are(path, condition):
    """Those of a concept name its own settings, or the run's."""
    known = {**SETTINGS, **OWN} if path in OWN else SETTINGS
    for one in condition.alternatives:
        assert one.path != path
        assert set(one.values) <= set(known[one.path].meta.choices)


def test_what_something_depends_on_is_in_sight_when_that_matters():
    """Nothing is out of sight because of a setting that is out of sight itself, while its own conditions hold."""
    for path, condition in CONDITIONS:
        for one in condition.alternatives:
            for needed in SETTINGS[one.path].meta.applies:
                assert any(implies(own, needed) for own in SETTINGS[path].meta.applies), (path, needed)


def implies(one, other):
    """Whether the other condition holds wherever this one does."""
    return one == other or any(
        one.path == way.path and set(one.values) <= set(way.values) for way in other.alternatives
        if isinstance(one, When) and one.values
    )
