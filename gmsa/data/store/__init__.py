"""The feature store: array files and a manifest."""

from gmsa.data.store.store import Store, StoredUtterances, is_store
from gmsa.data.store.writer import Row, write_store

__all__ = ["Row", "Store", "StoredUtterances", "is_store", "write_store"]
