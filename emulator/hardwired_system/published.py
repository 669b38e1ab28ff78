"""What the paper says, to compare with; nothing here enters a calculation."""

import functools
from pathlib import Path
from typing import Any

import yaml

_FILE = Path(__file__).parent / "published.yaml"


@functools.cache
def published() -> dict[str, Any]:
    """Return the published figures."""
    return yaml.safe_load(_FILE.read_text(encoding="utf-8"))


def published_shares() -> dict[int, dict[str, float]]:
    """Return shares of a token's time, from 0 to 1, by context."""
    table = published()["time_shares"]["percent"]
    return {
        context: {name: value / 100 for name, value in row.items()}
        for context, row in table.items()
    }


def share_deviation(context: int, shares: dict[str, float]) -> float:
    """Return the largest deviation from the published shares, in percentage points.

    Where the paper counts attention in the rest, so does this.
    """
    row, found = published_shares()[context], dict(shares)
    if not row["attention"]:
        found["other"] += found["attention"]
        found["attention"] = 0.0
    return max(100 * abs(found[name] - row[name]) for name in row)
