"""The extraction of many clips: which ones, workers, a cluster, the store, and the commands."""
