# SPDX-License-Identifier: Apache-2.0
"""Mutants of a module: the same syntax tree with one small fault in it, and a name that outlives edits elsewhere.

Operators:

========== ===========================================================================================
comparison ``==`` and ``!=``, ``<`` and ``<=``, ``in`` and ``not in``, ``is`` and ``is not`` exchanged
boolean    ``and`` and ``or`` exchanged, an operand dropped, ``not`` dropped
condition  the test of an ``if``, a conditional expression, a ``while`` or a comprehension always true, always false
constant   a number one higher, a truth value turned, text and bytes longer by one
arithmetic ``+`` and ``-``, ``*`` and ``//``, ``&`` and ``|``, ``<<`` and ``>>`` exchanged; ``~`` and ``-x`` dropped
return     a value replaced: a comparison by true and by false, anything else by None
raise      an exception is not raised
call       a call for its effect is not made
step       ``x += y`` is not done; ``continue`` and ``break`` exchanged
handler    an exception is not handled
element    an element of a set, list or dictionary, or of a tuple that is gone through, left out
========== ===========================================================================================

What says something to people is left alone: text of exceptions, refusals and verdicts decides nothing, and tests that
compared it would only repeat it. So are annotations, docstrings and decorators.
"""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

Change: TypeAlias = Callable[[ast.AST], ast.AST]

_COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_ARITHMETIC: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_FOR_PEOPLE: Final = frozenset({"Refusal", "Skipped", "refuse", "skip"})
"""Calls whose arguments are sentences."""
_LABELS: Final = frozenset({"what", "name"})
"""Names of arguments that are labels in messages."""
_CLIPPED: Final = 70


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One fault.

    Attributes:
        name: ``owner operator: before -> after``; unique in its module and independent of line numbers.
        owner: Qualified name of the outermost function around it, or empty at the level of module or class.
        operator: As in the module's docstring.
        line: Where, for people.
        index: Position of the node among all nodes of the tree, in the order of :func:`ast.walk`.
        change: Makes the mutated node from the node.
    """

    name: str
    owner: str
    operator: str
    line: int
    index: int
    change: Change


def mutants(source: str) -> list[Mutant]:
    """Return all mutants of a module's source, in the order of its lines."""
    tree = ast.parse(source)
    positions = {id(node): index for index, node in enumerate(ast.walk(tree))}
    found: list[Mutant] = []
    seen: dict[str, int] = {}
    for site in _Sites().of(tree):
        before, after = _words(site.node), _words(site.change(site.node))
        name = f"{site.owner or '<module>'} {site.operator}: {before} -> {after}"
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            name += f" #{seen[name]}"
        line = getattr(site.node, "lineno", 0)
        found.append(
            Mutant(
                name=name,
                owner=site.owner,
                operator=site.operator,
                line=line,
                index=positions[id(site.node)],
                change=site.change,
            )
        )
    return sorted(found, key=lambda mutant: mutant.line)


def mutated(source: str, mutant: Mutant) -> ast.Module:
    """Return the tree of a module with one fault in it."""
    tree = ast.parse(source)
    for index, node in enumerate(ast.walk(tree)):
        if index == mutant.index:
            return ast.fix_missing_locations(_Replace(node, mutant.change(node)).visit(tree))
    raise LookupError(mutant.name)


@dataclass(frozen=True, slots=True)
class _Site:
    owner: str
    operator: str
    node: ast.AST
    change: Change


class _Replace(ast.NodeTransformer):
    """Puts one node in the place of another."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._old = old
        self._new = new

    def visit(self, node: ast.AST) -> ast.AST:
        return self._new if node is self._old else self.generic_visit(node)


class _Sites:
    """Finds where a fault can be put."""

    def of(self, tree: ast.Module) -> Iterator[_Site]:
        yield from self._body(tree, path=(), owner="")

    def _body(self, node: ast.AST, path: tuple[str, ...], owner: str) -> Iterator[_Site]:
        """Go through the statements of a module, a class or a function, without its docstring."""
        for statement in getattr(node, "body", []):
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                continue
            yield from self._statement(statement, path, owner)

    def _statement(self, node: ast.AST, path: tuple[str, ...], owner: str) -> Iterator[_Site]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for default in (*node.args.defaults, *(item for item in node.args.kw_defaults if item)):
                yield from self._inside(default, owner)
            inner = (*path, node.name)
            yield from self._body(node, inner, owner or ".".join(inner))
        elif isinstance(node, ast.ClassDef):
            yield from self._body(node, (*path, node.name), owner)
        else:
            yield from self._inside(node, owner)

    def _inside(self, node: ast.AST, owner: str) -> Iterator[_Site]:
        site = _Sited(owner)
        match node:
            case ast.JoinedStr() | ast.Pass() | ast.Import() | ast.ImportFrom():
                return
            case ast.Raise():
                yield site("raise", node, lambda _: ast.Pass())
                return
            case ast.Assign(targets=[ast.Name(id="__all__")]):
                return
            case ast.AnnAssign(annotation=annotation, value=value):
                if value is not None and "TypeAlias" not in ast.dump(annotation):
                    yield from self._value(value, owner)
                return
            case ast.Assign(value=value):
                yield from self._value(value, owner)
                return
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield from self._statement(node, (), owner)
                return
            case ast.Call():
                yield from self._call(node, owner)
                return
            case ast.Return(value=ast.Tuple(elts=[ast.Constant(value=str()) | ast.JoinedStr(), *others])):
                for other in others:
                    yield from self._inside(other, owner)
                return
            case ast.Return():
                yield from _returned(node, site)
            case ast.Expr(value=ast.Call()):
                yield site("call", node, lambda _: ast.Pass())
            case ast.AugAssign():
                yield site("step", node, lambda _: ast.Pass())
            case ast.Continue():
                yield site("step", node, lambda _: ast.Break())
            case ast.Break():
                yield site("step", node, lambda _: ast.Continue())
            case ast.ExceptHandler(body=body):
                if not isinstance(body[-1], ast.Raise):
                    yield site("handler", node, _raising)
                for statement in body:
                    yield from self._inside(statement, owner)
                return
            case ast.If(test=test, body=[ast.Raise()]):
                # Without its raise the branch does nothing: the same as a condition that is never true.
                yield from _decided(test, site, (True, False))
                yield from self._inside(test, owner)
                for statement in node.orelse:
                    yield from self._inside(statement, owner)
                return
            case ast.If(test=test) | ast.IfExp(test=test):
                yield from _decided(test, site, (True, False))
            case ast.While(test=test):
                yield from _decided(test, site, (False,))
            case ast.For(iter=iterated) | ast.comprehension(iter=iterated):
                yield from _gone_through(iterated, site)
                for test in getattr(node, "ifs", []):
                    yield from _decided(test, site, (True, False))
            case ast.Compare():
                yield from _compared(node, site)
            case ast.BoolOp():
                yield from _joined(node, site)
            case ast.UnaryOp(op=ast.Not() | ast.Invert() | ast.USub()):
                name = "boolean" if isinstance(node.op, ast.Not) else "arithmetic"
                yield site(name, node, lambda found: found.operand)  # type: ignore[attr-defined]
            case ast.BinOp():
                yield from _calculated(node, site)
            case ast.Set() | ast.List() | ast.Dict():
                yield from _elements(node, site)
            case ast.Constant():
                yield from _constant(node, site)
            case _:
                pass
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.expr_context | ast.operator | ast.cmpop | ast.boolop | ast.unaryop):
                yield from self._inside(child, owner)

    def _value(self, node: ast.AST, owner: str) -> Iterator[_Site]:
        """What is assigned; a tuple of several is gone through when it is a table of the module."""
        if not owner and isinstance(node, ast.Tuple):
            yield from _gone_through(node, _Sited(owner))
        yield from self._inside(node, owner)

    def _call(self, node: ast.Call, owner: str) -> Iterator[_Site]:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in _FOR_PEOPLE or called.endswith("Error") or called == "NewType":
            return
        if isinstance(node.func, ast.Attribute):
            yield from self._inside(node.func.value, owner)
        for argument in node.args:
            inner = argument.value if isinstance(argument, ast.Starred) else argument
            if isinstance(argument, ast.Starred):
                yield from _gone_through(inner, _Sited(owner))
            yield from self._inside(inner, owner)
        for keyword in node.keywords:
            if keyword.arg not in _LABELS:
                yield from self._inside(keyword.value, owner)


class _Sited:
    """Makes the sites of one owner."""

    def __init__(self, owner: str) -> None:
        self._owner = owner

    def __call__(self, operator: str, node: ast.AST, change: Change) -> _Site:
        return _Site(self._owner, operator, node, change)


def _returned(node: ast.Return, site: _Sited) -> Iterator[_Site]:
    match node.value:
        case None | ast.Constant() | ast.Tuple():
            return
        case ast.Compare() | ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
            for value in (True, False):
                yield site("return", node, lambda _, value=value: ast.Return(ast.Constant(value)))  # type: ignore[misc]
        case _:
            yield site("return", node, lambda _: ast.Return(ast.Constant(None)))


def _decided(test: ast.expr, site: _Sited, values: tuple[bool, ...]) -> Iterator[_Site]:
    for value in values:
        yield site("condition", test, lambda _, value=value: ast.Constant(value))  # type: ignore[misc]


def _compared(node: ast.Compare, site: _Sited) -> Iterator[_Site]:
    def exchange(found: ast.AST, position: int) -> ast.AST:
        assert isinstance(found, ast.Compare)
        operators = list(found.ops)
        operators[position] = _COMPARISONS[type(operators[position])]()
        return ast.Compare(found.left, operators, found.comparators)

    for position in range(len(node.ops)):
        yield site("comparison", node, lambda found, at=position: exchange(found, at))  # type: ignore[misc]


def _joined(node: ast.BoolOp, site: _Sited) -> Iterator[_Site]:
    def drop(found: ast.AST, position: int) -> ast.AST:
        assert isinstance(found, ast.BoolOp)
        left = [value for index, value in enumerate(found.values) if index != position]
        return left[0] if len(left) == 1 else ast.BoolOp(found.op, left)

    other: ast.boolop = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    yield site("boolean", node, lambda found: ast.BoolOp(other, found.values))  # type: ignore[attr-defined]
    for position in range(len(node.values)):
        yield site("boolean", node, lambda found, at=position: drop(found, at))  # type: ignore[misc]


def _calculated(node: ast.BinOp, site: _Sited) -> Iterator[_Site]:
    other = _ARITHMETIC.get(type(node.op))
    if other is not None:
        yield site(
            "arithmetic",
            node,
            lambda found: ast.BinOp(found.left, other(), found.right),  # type: ignore[attr-defined]
        )


def _constant(node: ast.Constant, site: _Sited) -> Iterator[_Site]:
    value = node.value
    match value:
        case bool():
            yield site("constant", node, lambda _: ast.Constant(not value))
        case int():
            yield site("constant", node, lambda _: ast.Constant(value + 1))
        case str() if value and not _is_phrase(value):
            yield site("constant", node, lambda _: ast.Constant(value + "!"))
        case bytes():
            yield site("constant", node, lambda _: ast.Constant(value + b"\x01"))
        case _:
            return


def _is_phrase(text: str) -> bool:
    """Whether a text is a phrase of a message: several words, and not a name like ``SGX PCK Platform CA``."""
    return " " in text.strip() and not all(word[:1].isupper() for word in text.split())


def _gone_through(node: ast.AST, site: _Sited) -> Iterator[_Site]:
    """A tuple that somebody goes through; sets, lists and dictionaries are found where they stand."""
    if isinstance(node, ast.Tuple):
        yield from _elements(node, site)


def _elements(node: ast.AST, site: _Sited) -> Iterator[_Site]:
    def drop(found: ast.AST, position: int) -> ast.AST:
        if isinstance(found, ast.Dict):
            return ast.Dict(
                [key for index, key in enumerate(found.keys) if index != position],
                [value for index, value in enumerate(found.values) if index != position],
            )
        assert isinstance(found, ast.Set | ast.List | ast.Tuple)
        left = [item for index, item in enumerate(found.elts) if index != position]
        if isinstance(found, ast.Set):
            return ast.Set(left)
        return ast.List(left, ast.Load()) if isinstance(found, ast.List) else ast.Tuple(left, ast.Load())

    if isinstance(node, ast.Dict):
        size = len(node.keys)
    elif isinstance(node, ast.Set | ast.List | ast.Tuple):
        size = len(node.elts)
    else:
        return
    if size > 1:
        for position in range(size):
            yield site("element", node, lambda found, at=position: drop(found, at))  # type: ignore[misc]


def _raising(node: ast.AST) -> ast.AST:
    assert isinstance(node, ast.ExceptHandler)
    return ast.ExceptHandler(node.type, node.name, [ast.Raise()])


def _words(node: ast.AST) -> str:
    text = " ".join(ast.unparse(ast.fix_missing_locations(node)).split())
    return text if len(text) <= _CLIPPED else text[: _CLIPPED - 1] + "…"
