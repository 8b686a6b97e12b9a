"""Lists all experiments, with a sentence each."""

import ast
from pathlib import Path

from experiments._common import console


def experiments() -> dict[str, str]:
    """Name and first sentence of every experiment's docstring, read without importing any."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem.startswith("_"):
            continue
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.stem] = " ".join(text.split("\n\n")[0].split())
    return found


def main() -> None:
    """Prints the list."""
    say = console().print
    say("Experiments: python -m experiments.NAME (--help for its options)\n")
    listed = experiments()
    width = max(map(len, listed))
    for name, sentence in listed.items():
        say(f"  {name:<{width}}  {sentence}")


if __name__ == "__main__":
    main()
