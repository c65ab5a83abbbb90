"""A pickle reader that builds plain values and arrays only: it never imports or calls what a pickle names."""

from gmsa.data.unpickling.reader import load_pickle

__all__ = ["load_pickle"]
