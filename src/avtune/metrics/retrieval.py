"""Retrieval: how high the true partner of a query ranks among all candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RetrievalScores:
    """Scores of one direction.

    Attributes:
        recall_at_1: Share of queries whose partner ranks first, in [0, 1].
        recall_at_5: Among the first five.
        recall_at_10: Among the first ten.
        median_rank: Median rank of the partner, 1 is the best.
        queries: Number of queries.
    """

    recall_at_1: float
    recall_at_5: float
    recall_at_10: float
    median_rank: float
    queries: int


def partner_ranks(similarity: Any, ties: Literal["last", "first", "middle"] = "last") -> Floats:
    """Rank of the true partner for each query, from 1.

    Args:
        similarity: (queries, candidates); the partner of query i is candidate i.
        ties: Where the partner stands among candidates that are exactly as similar: ``last``, so that a model that
            tells nothing apart finds nothing; ``first``; or in the ``middle``.

    Returns:
        (queries,) ranks.

    Raises:
        ValueError: There are fewer candidates than queries, or a value is not finite.
    """
    table = np.asarray(similarity, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] > table.shape[1]:
        raise ValueError(f"similarities are (queries, candidates) with a partner for each, not {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError("similarities must be finite")
    own = table.diagonal()[:, None]
    ahead = (table > own).sum(axis=1)
    alike = (table == own).sum(axis=1) - 1
    share = {"last": 1.0, "first": 0.0, "middle": 0.5}[ties]
    ranks: Floats = 1 + ahead + share * alike
    return ranks


def retrieval_scores(ranks: Any) -> RetrievalScores:
    """Recalls and median rank.

    Args:
        ranks: (queries,) ranks from 1, at least one.

    Raises:
        ValueError: There is no rank.
    """
    places = np.asarray(ranks, dtype=np.float64)
    if not places.size:
        raise ValueError("there is no query to score")
    first, five, ten = (float((places <= k).mean()) for k in (1, 5, 10))
    return RetrievalScores(first, five, ten, float(np.median(places)), len(places))


def official_ranks(similarity: Any) -> Floats:
    """Ranks as the code that papers share computes them, for comparison alone.

    It looks for the partner's similarity in the sorted row and takes *every* place where it stands, so that a query
    with ties gives several ranks and counts several times.

    Args:
        similarity: (queries, candidates).

    Returns:
        (at least queries,) ranks from 1.
    """
    table = np.asarray(similarity, dtype=np.float64)
    falling = -np.sort(-table, axis=1)
    return np.nonzero(falling == table.diagonal()[:, None])[1].astype(np.float64) + 1
