"""Finds circles among the root modules of Rust crates.

Usage: module_circles.py SRC…   (the src folders of crates)

A root module is what lib.rs or main.rs declares: `store` stands for src/store.rs and everything in src/store/. One root
module imports another when a file of it names `crate::other`, `super::other` at the right depth, or an item that the crate
root re-exports from it. Test code (tests.rs, tests/, and modules under #[cfg(test)]) does not count.

Prints circles with the lines that close them, and fails when there is one. The tests of this file are its examples:
python3 -m doctest module_circles.py
"""

import pathlib
import re
import sys
from collections import deque

COMMENT_OR_LITERAL = re.compile(
    r"""//[^\n]* | /\*.*?\*/ | \br(?P<hashes>\#*)".*?"(?P=hashes) | "(?:\\.|[^"\\])*" | '(?:\\[^\n]*?|[^'\\\n])'""",
    re.DOTALL | re.VERBOSE,
)
TEST_MODULE = re.compile(r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*([;{])")
RE_EXPORT = re.compile(r"\bpub(?:\([^)]*\))?\s+use\s+(?:crate::|self::)?(\w+)::([^;]+);")


def without_comments(text: str) -> str:
    """Blanks comments and literals, and keeps the lines.

    >>> without_comments('use crate::a; // crate::b')
    'use crate::a; '
    >>> without_comments('let url = "http://crate::c"; x::<\\'a>()')
    "let url = ; x::<'a>()"
    >>> without_comments('/* crate::d\\n */ e')
    '\\n e'
    """
    return COMMENT_OR_LITERAL.sub(lambda match: "\n" * match[0].count("\n"), text)


def closing(text: str, start: int) -> int:
    """The position after the brace that closes the one at `start`.

    >>> closing('{ a { b } } c', 0)
    11
    """
    depth = 0
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return position + 1
    return len(text)


def without_tests(text: str) -> tuple[str, list[str]]:
    """Blanks inline test modules. Returns the names of those that are files of their own as well.

    >>> without_tests('a\\n#[cfg(test)]\\nmod tests { use crate::b; }\\nc')
    ('a\\n\\n\\nc', [])
    >>> without_tests('#[cfg(test)]\\nmod signer;')
    ('#[cfg(test)]\\nmod signer;', ['signer'])
    """
    files = []
    position = 0
    while match := TEST_MODULE.search(text, position):
        position = match.end()
        if match[2] == ";":
            files.append(match[1])
            continue
        end = closing(text, match.end() - 1)
        blank = "\n" * text.count("\n", match.start(), end)
        text = text[: match.start()] + blank + text[end:]
        position = match.start()
    return text, files


def heads(tree: str) -> list[str]:
    """The first names of a use tree that follows a prefix, such as `crate::`.

    >>> heads('a::B;')
    ['a']
    >>> heads('{a, b::{C, d::E}, f as g};')
    ['a', 'b', 'f']
    >>> heads('{self, a};')
    ['self', 'a']
    """
    if not tree.startswith("{"):
        match = re.match(r"\w+", tree)
        return [match[0]] if match else []
    names, depth, expected = [], 0, True
    for token in re.finditer(r"\w+|[{},]", tree[: closing(tree, 0)]):
        if token[0] in "{}":
            depth += 1 if token[0] == "{" else -1
        elif token[0] == ",":
            expected = expected or depth == 1
        elif depth == 1 and expected:
            names.append(token[0])
            expected = False
    return names


def references(text: str, depth: int) -> list[tuple[int, str]]:
    """The lines and names of everything that is named below the crate root, in a file at this depth of modules.

    >>> references('use crate::{a::A, b};\\ncrate::c::f(); $crate::d', 1)
    [(1, 'a'), (1, 'b'), (2, 'c'), (2, 'd')]
    >>> references('use super::a;\\nuse super::super::b;', 1)
    [(1, 'a')]
    >>> references('use super::a;\\nuse super::super::{b, c};', 2)
    [(2, 'b'), (2, 'c')]
    """
    root = re.compile(r"\bcrate::|(?<!::)(?<!\w)(?:super::){%d}(?!super\b)" % depth)
    found = []
    for match in root.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        found += [(line, name) for name in heads(text[match.end() :])]
    return found


def re_exports(text: str) -> dict[str, str]:
    """By exported name: the module that it comes from.

    >>> re_exports('pub use a::{B, c::D as E};\\npub use f::G;')
    {'B': 'a', 'E': 'a', 'G': 'f'}
    """
    exports = {}
    for module, tree in RE_EXPORT.findall(text):
        for leaf in re.findall(r"(\w+)\s*(?=[,}]|$)", tree):
            exports[leaf] = module
    return exports


class Crate:
    """The root modules of a crate, and the line by which one imports another."""

    def __init__(self, source: pathlib.Path):
        self.imports: dict[str, dict[str, str]] = {}
        roots = [path for path in (source / "lib.rs", source / "main.rs") if path.exists()]
        exports = {}
        for root in roots:
            exports |= re_exports(without_comments(root.read_text()))
        texts, tests = {}, set()
        for path in sorted(source.rglob("*.rs")):
            text, files = without_tests(without_comments(path.read_text()))
            texts[path] = text
            folder = path.parent if path in roots or path.name == "mod.rs" else path.with_suffix("")
            tests |= {folder / name for name in files}
        modules = {path.relative_to(source).parts[0].removesuffix(".rs") for path in texts if path not in roots}
        for path, text in texts.items():
            steps = path.with_suffix("").relative_to(source).parts
            if path in roots or "tests" in steps or steps[0] == "bin":
                continue
            if any(test == path.with_suffix("") or test in path.parents for test in tests):
                continue
            depth = len(steps) - (path.name == "mod.rs")
            for line, name in references(text, depth):
                target = name if name in modules else exports.get(name)
                if target and target != steps[0]:
                    self.imports.setdefault(steps[0], {}).setdefault(target, f"{path}:{line}")

    def circles(self) -> list[list[str]]:
        """The shortest circles that have no import in common. Every group of entangled modules has at least one."""
        found = set()
        for start, targets in self.imports.items():
            for target in targets:
                if way := self.way(target, start):
                    # The same circle is found from each of its modules.
                    first = way.index(min(way))
                    found.add(tuple(way[first:] + way[:first]))
        circles, seen = [], set()
        for circle in sorted(found, key=lambda circle: (len(circle), circle)):
            imports = set(zip(circle, circle[1:] + circle[:1]))
            if not imports & seen:
                circles.append(list(circle))
                seen |= imports
        return circles

    def way(self, start: str, end: str) -> list[str]:
        """The shortest way along imports; empty when there is none."""
        before = {start: None}
        queue = deque([start])
        while queue:
            module = queue.popleft()
            if module == end:
                way = []
                while module is not None:
                    way.append(module)
                    module = before[module]
                return way[::-1]
            for target in sorted(self.imports.get(module, {})):
                if target not in before:
                    before[target] = module
                    queue.append(target)
        return []


def main(sources: list[str]) -> int:
    count = 0
    for source in sources:
        crate = Crate(pathlib.Path(source))
        for circle in crate.circles():
            count += 1
            print(f"{source}: root modules import each other: {' → '.join([*circle, circle[0]])}")
            for module, target in zip(circle, [*circle[1:], circle[0]]):
                print(f"    {crate.imports[module][target]}: {module} → {target}")
    if count:
        print(f"circles of root modules: {count}")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
