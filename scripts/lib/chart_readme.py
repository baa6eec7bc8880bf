"""Prints the README of a chart: the text of README.md.head, then a table made from the comments of values.yaml.

Usage: chart_readme.py CHART

In values.yaml a comment is above its key. A map on one line is one row. In a map on several lines each key is a row, and the
comment of the map is the comment of its keys.
"""

import json
import pathlib
import re
import sys

import yaml

KEY = re.compile(r"^(?P<indent> *)(?P<name>[A-Za-z][\w-]*):(?P<rest>.*)$")


def rows(text: str) -> list[tuple[str, str, str]]:
    found, path, comment = [], [], []
    values = yaml.safe_load(text)
    # The text before the first empty line is about the whole file.
    for line in text.split("\n\n", 1)[1].splitlines():
        stripped = line.strip()
        if stripped.startswith("# "):
            comment.append(stripped[2:])
            continue
        match = KEY.match(line)
        if not match:
            assert not stripped, f"not understood: {line}"
            comment = []
            continue
        depth = len(match["indent"]) // 2
        path = [*path[:depth], match["name"]]
        description, comment = " ".join(comment), []
        if match["rest"].strip():
            value = values
            for name in path:
                value = value[name]
            found.append((".".join(path), f"`{json.dumps(value)}`", description))
        elif description:
            found.append((".".join(path), "", description))
    return found


def main(chart: str) -> None:
    folder = pathlib.Path(chart)
    print((folder / "README.md.head").read_text())
    print("| value | default | |")
    print("|---|---|---|")
    for name, default, description in rows((folder / "values.yaml").read_text()):
        cells = (f"`{name}`", default, description)
        print("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")


main(sys.argv[1])
