"""Search in folders of videos, by sound and by picture: embed, index, search, map."""

from avtune.retrieval.embedders import Embedder, FileVectors
from avtune.retrieval.indexing import Indexed, update_index
from avtune.retrieval.search import Compared, Found, SearchIndex, what_it_has
from avtune.retrieval.store import SearchError

__all__ = [
    "Compared",
    "Embedder",
    "FileVectors",
    "Found",
    "Indexed",
    "SearchError",
    "SearchIndex",
    "update_index",
    "what_it_has",
]
