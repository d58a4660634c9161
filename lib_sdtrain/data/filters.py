"""Expressions that choose pictures by their columns: `score > 0 and rating != 'e'`."""
from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from lib_sdtrain.errors import UserError

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}  # fmt: skip
_TESTS = (*_COMPARE, ast.In, ast.NotIn)
_WORDS = ("name", "folder", "caption")
_LEADING_ZERO = re.compile(r"(?<![\w.'\"])0\d")
LONGEST = 2000
WHERE = "data.filter"


class _Unknown(Exception):  # noqa: N818 - a picture without the column that is asked for
    pass


class _Text(str):
    """What a column says, which may be a number written as text (in a CSV). It is one only beside a number."""

    __slots__ = ()


class _Words(_Text):
    """What a column says that is words in any case: a file called 0123 is not the number."""

    __slots__ = ()


class Filter:
    """Whether a picture is used. A picture without one of the columns, or with nothing in it, is not.

    A quoted value is compared as text, a number as a number.
    """

    def __init__(self, text: str) -> None:
        """Raise `UserError` for what is no such expression."""
        fix = "for instance: score > 0 and rating != 'e'"
        if len(text) > LONGEST:
            raise UserError("the expression is too long", where=WHERE)
        try:
            self.tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError) as error:
            if _LEADING_ZERO.search(text):
                fix = "put what begins with 0 into quotes: name == '0123'"
            raise UserError(f"{text!r} is not an expression", where=WHERE, fix=fix) from error
        _check(self.tree, text, fix)
        self.columns = sorted({node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name)})

    def __call__(self, row: Mapping[str, Any]) -> bool:
        """The expression's value for a picture's columns. Raises `UserError` for text compared with a number."""
        try:
            return _truth(_value(self.tree, row))
        except _Unknown:
            return False
        except TypeError as error:
            raise UserError(
                f"a column holds text where the filter has a number, or the other way round: {error}", where=WHERE,
                fix="write numbers without quotes",
            ) from error


def _check(node: ast.AST, text: str, fix: str) -> None:
    allowed = (
        ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.Compare, ast.Name, ast.Load, ast.Constant,
        ast.List, ast.Tuple, *_TESTS,
    )
    for part in ast.walk(node):
        if not isinstance(part, allowed):
            raise UserError(f"{text!r}: {type(part).__name__} is not possible here", where=WHERE, fix=fix)


def _value(node: ast.AST, row: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.BoolOp):
        combine = all if isinstance(node.op, ast.And) else any
        return combine(_truth(_value(part, row)) for part in node.values)
    if isinstance(node, ast.UnaryOp):
        value = _value(node.operand, row)
        return not _truth(value) if isinstance(node.op, ast.Not) else -number_or_text(value)
    if isinstance(node, ast.Compare):
        values = [_value(part, row) for part in (node.left, *node.comparators)]
        return all(_compared(test, *pair) for test, pair in zip(node.ops, pairwise(values), strict=True))
    if isinstance(node, ast.Name):
        return _column(row, node.id)
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(part, row) for part in node.elts]
    return node.value


def _column(row: Mapping[str, Any], name: str) -> Any:
    value = row.get(name)
    if value is None or value == "":
        raise _Unknown(name)
    if not isinstance(value, str):
        return value
    return _Words(value) if name in _WORDS else _Text(value)


def _truth(value: Any) -> bool:
    return bool(_read(value))


def _read(value: Any) -> Any:
    """What a column's text says: a number where it is one. What the filter has in quotes stays text."""
    return number_or_text(value) if isinstance(value, _Text) else value


def _compared(test: ast.cmpop, one: Any, other: Any) -> bool:
    if not isinstance(test, (ast.In, ast.NotIn)):
        if not isinstance(test, (ast.Eq, ast.NotEq)) and _numbers_as_text(one, other):
            message = f"{one!r} and {other!r}"  # '9' would be more than '10'
            raise TypeError(message)
        return _COMPARE[type(test)](*_alike(one, other))
    among = any(operator.eq(*_alike(one, each)) for each in other) if isinstance(other, (list, tuple)) else one in other
    return among == isinstance(test, ast.In)


def _alike(one: Any, other: Any) -> tuple[Any, Any]:
    """Both as they are compared: a column's text is read as a number beside a number, or another column's."""
    texts = [value for value in (one, other) if isinstance(value, str)]
    if len(texts) == 2 and any(type(text) is not _Text for text in texts):
        return one, other
    read = _read(one), _read(other)
    return (one, other) if any(isinstance(value, str) for value in read) else read


def _numbers_as_text(one: Any, other: Any) -> bool:
    """Whether both are numbers, of which one is put into quotes and the other a column's."""
    quoted = any(type(value) is str for value in (one, other))
    of_column = any(not isinstance(value, _Words) and type(value) is not str for value in (one, other))
    return quoted and of_column and all(isinstance(number_or_text(value), (int, float)) for value in (one, other))


def number_or_text(value: Any) -> Any:
    """Numbers that are written as text (in a CSV) as numbers."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value
