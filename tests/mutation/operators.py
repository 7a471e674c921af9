"""Mutants by operators on the syntax tree: a comparison, an argument or a number is changed."""

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOMS = ("maths", "objective", "signals", "algorithms", "training", "rollout")

NEGATED = {
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
BOUNDARY = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug. `id` does not change with edits elsewhere: file, function, operator, its number."""

    id: str
    file: str  # below the package's folder
    was: str
    became: str
    source: str  # of the whole file with the bug


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """(operator, what the node becomes), for every operator that applies to a node."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        for name, table in (("compare", NEGATED), ("boundary", BOUNDARY)):
            if other := table.get(type(node.ops[0])):
                yield name, ast.Compare(node.left, [other()], node.comparators)
    if isinstance(node, ast.BinOp) and (other := ARITHMETIC.get(type(node.op))):
        yield "arithmetic", ast.BinOp(node.left, other(), node.right)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield "arithmetic", node.operand
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "drop call", ast.Pass()
    if isinstance(node, ast.Call):
        plain = [a for a in node.args if not isinstance(a, ast.Starred)]
        if isinstance(node.func, ast.Attribute) and not isinstance(node.func.value, ast.Name):
            yield "drop call", node.func.value  # x.clamp(min=0)[0].sum() without its sum()
        if len(plain) == len(node.args) >= 2 and ast.dump(plain[0]) != ast.dump(plain[1]):
            swapped = [plain[1], plain[0], *plain[2:]]
            yield "swap arguments", ast.Call(node.func, swapped, node.keywords)
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        value = not node.value if isinstance(node.value, bool) else node.value + 1
        yield "constant", ast.Constant(value)


def places(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """(qualified name of the function around it, node), but for annotations, messages and texts."""

    def visit(node: ast.AST, within: str) -> Iterator[tuple[str, ast.AST]]:
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "type_params"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if not isinstance(child, ast.AST) or isinstance(child, ast.Raise | ast.Assert):
                    continue
                if isinstance(child, ast.FunctionDef | ast.ClassDef):
                    yield from visit(child, f"{within}.{child.name}".lstrip("."))
                    continue
                yield within, child
                yield from visit(child, within)

    yield from visit(tree, "")


def mutants_of(path: Path, package: Path) -> Iterator[Mutant]:
    """Every mutant of a file, in the order of its text."""
    source = path.read_text(encoding="utf-8")
    file = path.relative_to(package).as_posix()
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))
    raw = source.encode()
    numbers: Counter[str] = Counter()
    for function, node in places(ast.parse(source)):
        for operator, replacement in changes(node):
            first = starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
            last = starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
            became = ast.unparse(ast.fix_missing_locations(replacement))
            if not isinstance(replacement, ast.stmt):
                became = f"({became})"
            mutated = (raw[:first] + became.encode() + raw[last:]).decode()
            place = f"{file}:{function or '<module>'}:{operator}"
            numbers[place] += 1
            try:
                compile(mutated, file, "exec")
            except SyntaxError:
                continue
            was = " ".join(raw[first:last].decode().split())
            yield Mutant(f"{place}:{numbers[place]}", file, was, became, mutated)


def mutants(package: Path, rooms: tuple[str, ...] = ROOMS) -> list[Mutant]:
    """All of them, in a fixed order."""
    files = [path for room in rooms for path in sorted((package / room).rglob("*.py"))]
    return [mutant for path in files for mutant in mutants_of(path, package)]
