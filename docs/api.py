"""Writes api.md, the reference of everything public, from signatures and docstrings: python docs/api.py

It reads the sources and imports nothing of the package but its list of public names.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import unleak

PAGE = Path(__file__).with_name("api.md")
_SOURCES = Path(unleak.__file__).parents[1]
_HEAD = """# API

Everything that `import unleak` offers. Written by `python docs/api.py` from the docstrings; a test keeps it up to date.
"""


def page() -> str:
    """The text of api.md."""
    parts = [_HEAD]
    for name, module in unleak._HOME.items():
        node = _definition(module, name)
        parts += ["", f"## unleak.{name}", "", *_told(node, f"unleak.{name}")]
        if isinstance(node, ast.ClassDef):
            for member in _members(node):
                parts += ["", f"### {name}.{member.name}", "", *_told(member, f"{name}.{member.name}")]
    return "\n".join(parts) + "\n"


def _definition(module: str, name: str) -> ast.ClassDef | ast.FunctionDef:
    """Where `module` defines `name`, or the module that it takes it from."""
    place = _SOURCES.joinpath(*module.split("."))
    tree = ast.parse(
        (place / "__init__.py" if place.is_dir() else place.with_suffix(".py")).read_text(encoding="utf-8")
    )
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node
        if isinstance(node, ast.ImportFrom) and node.module and any(one.name == name for one in node.names):
            return _definition(node.module, name)
    raise LookupError(f"{module} defines no {name}")


def _members(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and not member.name.startswith("_"):
            yield member


def _told(node: ast.ClassDef | ast.FunctionDef, name: str) -> Iterator[str]:
    """Signature and docstring; of a class, its fields too."""
    yield from ["```python", _signature(node, name).replace("'", '"'), "```"]
    text = ast.get_docstring(node)
    assert text is not None, f"{name} has no docstring"
    yield from ["", text]
    if isinstance(node, ast.ClassDef):
        fields = [(field, after) for field, after in zip(node.body, [*node.body[1:], None], strict=True)]
        rows = [_field(field, after) for field, after in fields if isinstance(field, ast.AnnAssign)]
        yield from ["", *rows] if any(rows) else []


def _field(field: ast.AnnAssign, after: ast.stmt | None) -> str:
    told = after.value if isinstance(after, ast.Expr) else None
    text = " ".join(str(told.value).split()) if isinstance(told, ast.Constant) else ""
    value = f" = {ast.unparse(field.value)}" if field.value else ""
    return f"- `{ast.unparse(field.target)}: {ast.unparse(field.annotation)}{value}`{': ' if text else ''}{text}"


def _signature(node: ast.ClassDef | ast.FunctionDef, name: str) -> str:
    if isinstance(node, ast.ClassDef):
        init = next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
        return f"class {name}{'' if init is None else f'({_arguments(init)})'}"
    kinds = {one.id for one in node.decorator_list if isinstance(one, ast.Name)}
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if "property" in kinds or "cached_property" in kinds:
        return f"{name}{returns.replace(' -> ', ': ')}"
    method = not name.startswith("unleak.") and "staticmethod" not in kinds
    head, arguments = f"{name}(", _arguments(node, bound=method)
    if len(head) + len(arguments) + len(returns) > 100:
        arguments = "\n    " + ",\n    ".join(_split(arguments)) + ",\n"
    return f"{head}{arguments}){returns}"


def _arguments(node: ast.FunctionDef, *, bound: bool = True) -> str:
    text = ast.unparse(node.args)
    return text.partition(", ")[2] if bound else text


def _split(arguments: str) -> Iterator[str]:
    """The arguments one by one; commas inside of brackets and quotes part none."""
    depth, quoted, begun = 0, "", 0
    for place, letter in enumerate(arguments):
        quoted = "" if letter == quoted else quoted or (letter if letter in "'\"" else "")
        depth += 0 if quoted else (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth and not quoted:
            yield arguments[begun:place].strip()
            begun = place + 1
    yield arguments[begun:].strip()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE, file=sys.stderr)
