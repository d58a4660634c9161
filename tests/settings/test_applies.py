"""When a setting matters is declared beside it."""
from __future__ import annotations

import pytest

from lib_sdtrain.settings.applies import When, any_on, applies, when
from lib_sdtrain.settings.fields import declared
from lib_sdtrain.settings.run import Concept, RunSettings

SETTINGS = {item.path: item for item in declared(RunSettings)}
CONDITIONS = [(item.path, condition) for item in SETTINGS.values() for condition in item.meta.applies]
BESIDE = [(item.path, condition) for item in declared(Concept) for condition in item.meta.applies]


@pytest.mark.parametrize(("condition", "values", "holds"), [
    (when("a"), {"a": True}, True), (when("a"), {"a": False}, False), (when("a"), {"a": ""}, False),
    (when("a"), {"a": None}, False), (when("a"), {"a": 0.0}, False), (when("a"), {"a": "off"}, False),
    (when("a"), {"a": "0.5"}, True), (when("a", "x", "y"), {"a": "y"}, True), (when("a", "x", "y"), {"a": "z"}, False),
    (any_on("a", "b"), {"a": "", "b": 3}, True), (any_on("a", "b"), {"a": "", "b": 0}, False),
    (When(("a", "b"), ("x",)), {"a": "y", "b": "x"}, True),
])  # fmt: skip
def test_a_setting_is_on_or_has_one_of_the_values(condition, values, holds):
    assert condition.holds(values.__getitem__) == holds


def test_all_conditions_must_hold():
    both = (when("a"), when("b", "x"))
    assert applies(both, {"a": 1, "b": "x"}.__getitem__)
    assert not applies(both, {"a": 1, "b": "y"}.__getitem__)
    assert applies((), {}.__getitem__)


@pytest.mark.parametrize(("path", "condition"), CONDITIONS)
def test_conditions_name_settings_and_values_that_there_are(path, condition):
    for other in condition.paths:
        assert other != path
        assert set(condition.values) <= set(SETTINGS[other].meta.choices)


@pytest.mark.parametrize(("path", "condition"), BESIDE)
def test_a_concepts_conditions_name_its_own_settings_or_the_runs(path, condition):
    own = {item.path: item for item in declared(Concept)}
    for other in condition.paths:
        assert other != path
        assert set(condition.values) <= set({**SETTINGS, **own}[other].meta.choices)


def test_what_something_depends_on_is_in_sight_when_that_matters():
    """Nothing is out of sight because of a setting that is out of sight itself, while its own conditions hold."""
    for path, condition in CONDITIONS:
        for other in condition.paths:
            assert set(SETTINGS[other].meta.applies) <= set(SETTINGS[path].meta.applies), (path, other)
