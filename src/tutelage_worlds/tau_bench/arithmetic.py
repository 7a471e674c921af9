"""The calculator tool: Python's arithmetic, without evaluating text as Python.

tau-bench lets Python evaluate any text of digits, "+-*/(). " and rounds the result. The results and
error texts here are the same, with two bounds: a text of more than LONGEST characters and a number
of more than BITS bits are refused, where Python would compute for hours or fill the memory.
"""

import ast
import operator
from collections.abc import Callable
from typing import Any, Final

LONGEST: Final = 500
BITS: Final = 100_000
CHARACTERS: Final = "0123456789+-*/(). "

_BINARY: Final[dict[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}
_UNARY: Final[dict[type[ast.unaryop], Callable[[Any], Any]]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
ERRORS = (ArithmeticError, SyntaxError, TypeError, ValueError, MemoryError, RecursionError)


def calculate(expression: str) -> str:
    """The value of an expression, rounded to cents.

    Raises TypeError for what is not text, as Python's own evaluation does.

    >>> calculate("2 * (3 + 0.456)"), calculate("1 / 0"), calculate("two")
    ('6.91', 'Error: division by zero', 'Error: invalid characters in expression')
    """
    if not all(character in CHARACTERS for character in expression):
        return "Error: invalid characters in expression"
    if not isinstance(expression, str):
        return "Error: eval() arg 1 must be a string, bytes or code object"
    if len(expression) > LONGEST:
        return f"Error: the expression is longer than {LONGEST} characters"
    try:
        tree = ast.parse(expression.lstrip(" "), "<string>", "eval")
        return str(round(float(_value(tree.body)), 2))
    except ERRORS as error:
        return f"Error: {error}"


def _value(root: ast.expr) -> Any:
    """The value of a tree. A stack of its own lets no depth of brackets reach Python's limit."""
    todo: list[tuple[ast.expr, bool]] = [(root, False)]
    values: list[Any] = []
    while todo:
        node, ready = todo.pop()
        parts = _parts(node)
        if parts and not ready:
            todo.append((node, True))
            todo += [(part, False) for part in reversed(parts)]
            continue
        given = [values.pop() for _ in parts][::-1]
        values.append(_apply(node, given))
    return values.pop()


def _parts(node: ast.expr) -> list[ast.expr]:
    """What is evaluated before a node, in Python's order."""
    if isinstance(node, ast.BinOp):
        return [node.left, node.right]
    if isinstance(node, ast.UnaryOp):
        return [node.operand]
    if isinstance(node, ast.Call):
        return [node.func, *node.args]
    return []


def _apply(node: ast.expr, given: list[Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp):
        return _UNARY[type(node.op)](given[0])
    if isinstance(node, ast.BinOp):
        _bound(node.op, given[0], given[1])
        return _BINARY[type(node.op)](given[0], given[1])
    if isinstance(node, ast.Call):
        raise TypeError(f"'{type(given[0]).__name__}' object is not callable")
    if isinstance(node, ast.Tuple):  # only the empty one can be written without a comma
        return ()
    raise SyntaxError("invalid syntax")


def _bound(op: ast.operator, left: Any, right: Any) -> None:
    """Refuse whole numbers that would take too long: only powers and products grow that fast."""
    if not (isinstance(left, int) and isinstance(right, int)):
        return
    if isinstance(op, ast.Pow):
        bits = left.bit_length() * max(right, 0) if abs(left) > 1 else 0
    else:
        bits = left.bit_length() + right.bit_length()
    if bits > BITS:
        raise OverflowError("the number is too large")
