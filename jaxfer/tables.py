"""Tables in Markdown that are also readable in a terminal."""

from collections.abc import Sequence


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns are aligned.

    Args:
        header: the names of the columns.
        rows: the cells of each row.

    Raises:
        ValueError: a row of another length than the header.

    Example:
        >>> print(markdown(["n", "AnB"], [["1", "2.50 ± 0.31"], ["7", "-9.10"]]))
        | n | AnB         |
        | - | ----------- |
        | 1 | 2.50 ± 0.31 |
        | 7 | -9.10       |
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"expected {len(header)} cells, got {list(row)}")
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    shown = [
        " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in (header, ["-" * width for width in widths], *rows)
    ]
    return "\n".join(f"| {line} |" for line in shown)
