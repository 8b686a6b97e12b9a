"""`python -m jaxrnn`: the catalogue of cells; `python -m jaxrnn LSTM`: one of them."""

import sys

from jaxrnn import catalogue


def main(arguments: list[str]) -> int:
    """Prints what is asked for, or one sentence if there is no such cell."""
    try:
        if arguments == ["--markdown"]:
            print(catalogue.table())
        else:
            print("\n\n\n".join(map(catalogue.card, arguments)) or catalogue.text())
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
