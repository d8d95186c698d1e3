"""Which examples of a pool are meant: an expression over its columns.

The expression is Python's grammar, cut down to comparisons, ``in``, ``is None``,
``and``, ``or`` and ``not``; it is never run, but turned into calls of Arrow.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int64

from curator.config import did_you_mean
from curator.errors import ConfigError
from curator.offline._literals import compare, compare_literal, is_among, plain
from curator.pools import Pool

__all__ = ["Where"]

_pc: Any = pc  # the module has no types
# Rows whose columns are in memory at once.
_BLOCK = 65_536
# Parts within parts; Python's own stack ends at some hundreds.
_MAX_DEPTH = 50
_KINDS: Mapping[type, str] = {
    str: "string",
    bool: "bool",
    int: "int64",
    float: "double",
}
_EXAMPLE = "such as 'lang == \"en\" and length < 512'"


class Where:
    """A condition on the columns of a pool.

    ::

        lang == "en" and length < 512
        0.2 <= quality < 0.9 and not flagged
        domain in ("web", "books") or source is None
        column("a name with spaces") != 3

    A comparison with a null is neither true nor false, as in SQL; what is not true is
    left out. A number that is not finite is like a null. What is written is compared in
    the type of the column, as in NumPy, and with integers exactly.

    Attributes:
        text: The expression, with the spaces and quotes that Python would write.
        columns: Names of the columns that it reads, sorted.
    """

    def __init__(self, text: str) -> None:
        """Reads an expression.

        Raises:
            ConfigError: It is none; the message says what is allowed.
        """
        # Of several lines only in parentheses; the last may end in a comment.
        lines = text.strip()
        lines = f"({lines}\n)" if "\n" in lines else lines
        try:
            tree = ast.parse(lines, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = "too long"
            if isinstance(error, SyntaxError | ValueError):
                reason = getattr(error, "msg", "it has characters that are no text")
            hint = "; equal is written ==" if " = " in f" {text} " else ""
            _fail(text, f"{reason}{hint}")
        self._given = text
        self._tree = tree
        self._columns: set[str] = set()
        self._check(tree)
        self.text = ast.unparse(tree)
        self.columns = sorted(self._columns)
        if not self.columns:
            _fail(text, "it names no column")

    def check_columns(self, pool_name: str, pool: Pool) -> None:
        """Checks that a pool has the columns.

        Raises:
            ConfigError: It lacks one.
        """
        for name in self.columns:
            if name not in pool.schema.names:
                hint = did_you_mean(name, pool.schema.names)
                msg = f"where: pool {pool_name!r} has no {name!r}{hint}"
                raise ConfigError(msg)

    def of(self, rows: pa.RecordBatch) -> Bool[np.ndarray, " n"]:
        """Returns for which rows it is true.

        Raises:
            ConfigError: A column is of a type that it cannot be compared with.
        """
        found = self._array(self._tree, rows)
        if not pa.types.is_boolean(found.type):
            _fail(self._given, f"{self.text} is {found.type}, not true or false")
        return found.fill_null(False).to_numpy(zero_copy_only=False)

    def ids(self, pool: Pool, limit: int | None) -> Int64[np.ndarray, " n"]:
        """Returns the ids of the first ``limit`` examples that it is true of.

        Raises:
            ConfigError: As for :meth:`of`.
            PoolError: The pool cannot be read.
        """
        parts = [np.empty(0, np.int64)]
        num_found = 0
        for ids in _blocks(pool.num_examples):
            found = ids[self.of(pool.take(ids, self.columns))]
            parts.append(found)
            num_found += len(found)
            if limit is not None and num_found >= limit:
                break
        return np.concatenate(parts)[:limit]

    def _check(self, node: ast.expr, depth: int = 0) -> None:
        """Checks that a part is of the grammar, and notes the columns in it."""
        if depth > _MAX_DEPTH:
            _fail(self._given, f"nested more than {_MAX_DEPTH} deep")
        match node:
            case ast.BoolOp(values=values):
                for value in values:
                    self._check(value, depth + 1)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self._check(operand, depth + 1)
            case ast.Compare(left=left, ops=ops, comparators=others):
                self._check_operand(left)
                for op, other in zip(ops, others, strict=True):
                    self._check_comparison(op, other)
            case _:
                if self._is_literal(node):
                    _fail(self._given, f"{ast.unparse(node)} alone is no condition")
                self._check_operand(node)

    def _check_comparison(self, op: ast.cmpop, other: ast.expr) -> None:
        if isinstance(op, ast.In | ast.NotIn):
            ok = isinstance(other, ast.Tuple | ast.List | ast.Set) and all(
                self._is_literal(item) for item in other.elts
            )
            if not ok:
                _fail(
                    self._given,
                    f"after 'in': expected values in parentheses such as ('a', 'b'); "
                    f"got {ast.unparse(other)}",
                )
        elif isinstance(op, ast.Is | ast.IsNot):
            if not (isinstance(other, ast.Constant) and other.value is None):
                _fail(self._given, "'is' stands only before None or not None")
        else:
            self._check_operand(other)

    def _check_operand(self, node: ast.expr) -> None:
        name = _column(node)
        if name is not None:
            self._columns.add(name)
        elif not self._is_literal(node):
            _fail(
                self._given,
                f"{ast.unparse(node)}: expected a column, a number, a text in quotes, "
                "True or False",
            )

    @staticmethod
    def _is_literal(node: ast.expr) -> bool:
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            node = node.operand
            return isinstance(node, ast.Constant) and type(node.value) in (int, float)
        return isinstance(node, ast.Constant) and isinstance(
            node.value, str | bool | int | float
        )

    def _array(self, node: ast.expr, rows: pa.RecordBatch) -> Any:
        """Returns what a part says of each row, or a column as it is."""
        if isinstance(node, ast.BoolOp):
            combine = _pc.and_kleene if isinstance(node.op, ast.And) else _pc.or_kleene
            return self._combined(combine, node.values, rows)
        if isinstance(node, ast.UnaryOp):
            return self._call(node, _pc.invert, self._array(node.operand, rows))
        if isinstance(node, ast.Compare):
            return self._compared(node, rows)
        return self._operand(node, rows)

    def _combined(
        self, combine: Callable[[Any, Any], Any], parts: list[ast.expr], rows: Any
    ) -> Any:
        found = self._array(parts[0], rows)
        for part in parts[1:]:
            found = self._call(part, combine, found, self._array(part, rows))
        return found

    def _compared(self, node: ast.Compare, rows: pa.RecordBatch) -> Any:
        """Returns a comparison, or the conjunction of a chain of them."""
        found, left = None, node.left
        for op, right in zip(node.ops, node.comparators, strict=True):
            each = self._comparison(node, left, op, right, rows)
            found = each if found is None else _pc.and_kleene(found, each)
            left = right
        return found

    def _comparison(
        self,
        node: ast.Compare,
        left: ast.expr,
        op: ast.cmpop,
        right: ast.expr,
        rows: pa.RecordBatch,
    ) -> Any:
        if isinstance(op, ast.Is | ast.IsNot):
            value = self._operand(left, rows)
            return _pc.is_null(value) if isinstance(op, ast.Is) else _pc.is_valid(value)
        if isinstance(op, ast.In | ast.NotIn):
            items = [_literal(each) for each in cast("ast.Tuple", right).elts]
            value, kind = self._operand(left, rows), self._kind(left, rows)
            among = functools.partial(is_among, kind=kind, values=items)
            found = self._call(node, among, value)
            return found if isinstance(op, ast.In) else _pc.invert(found)
        names = _column(left), _column(right)
        if names[0] is None and names[1] is not None:
            literal, column, is_left = left, right, True
        elif names[1] is None and names[0] is not None:
            literal, column, is_left = right, left, False
        else:
            value, other = self._operand(left, rows), self._operand(right, rows)
            return self._call(node, functools.partial(compare, type(op)), value, other)
        value, kind = self._operand(column, rows), self._kind(column, rows)
        against = _literal(literal)

        def compared(value: Any) -> Any:
            return compare_literal(type(op), value, kind, against, is_left=is_left)

        return self._call(node, compared, value, what=_KINDS[type(against)])

    def _kind(self, node: ast.expr, rows: pa.RecordBatch) -> pa.DataType:
        """Returns the type of a column before it was made plain."""
        name = _column(node)
        if name is None:
            return pa.scalar(_literal(node)).type
        kind = rows.schema.field(name).type
        return kind.value_type if pa.types.is_dictionary(kind) else kind

    def _operand(self, node: ast.expr, rows: pa.RecordBatch) -> Any:
        """Returns a column, or a literal as often as there are rows."""
        name = _column(node)
        if name is None:
            value = _literal(node)
            return self._call(node, lambda: pa.repeat(pa.scalar(value), len(rows)))
        return plain(rows.column(name))

    def _call(
        self, node: ast.expr, call: Callable[..., Any], *given: Any, what: str = ""
    ) -> Any:
        try:
            return call(*given)
        except (pa.ArrowException, OverflowError) as error:
            kinds = [str(each.type) for each in given] + [what] * bool(what)
            why = f"does not go with {' and '.join(kinds)}" if kinds else str(error)
            _fail(self._given, f"{ast.unparse(node)}: {why}")


def _blocks(num_examples: int) -> Iterator[Int64[np.ndarray, " b"]]:
    for start in range(0, num_examples, _BLOCK):
        yield np.arange(start, min(start + _BLOCK, num_examples))


def _column(node: ast.expr) -> str | None:
    """Returns the name of a column: a bare name, or ``column("any name")``."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Call(
            func=ast.Name(id="column"),
            args=[ast.Constant(value=str(name))],
            keywords=[],
        ):
            return name
        case _:
            return None


def _literal(node: ast.expr) -> Any:
    return ast.literal_eval(node)


def _fail(text: str, problem: str) -> NoReturn:
    msg = f"where: {text!r}: {problem}. Expected a condition {_EXAMPLE}"
    raise ConfigError(msg)
