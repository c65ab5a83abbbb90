"""A machine for pickles that builds plain values and arrays, and never imports or calls anything."""

from gmsa.data.unpickling.names import Cut, Damaged, Refused
from gmsa.data.unpickling.opcodes import execute
from gmsa.data.unpickling.plain import check_plain

__all__ = ["Cut", "Damaged", "Refused", "check_plain", "execute"]
