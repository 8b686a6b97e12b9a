"""Cells, from their papers."""

from papers import Row

ROWS: dict[str, Row] = {}
