"""Text encoders of Hugging Face: their folders, the word pieces of transcripts, and their states."""

from gmsa.text.encoder import TextEncoder
from gmsa.text.folder import EncoderFolder
from gmsa.text.texts import Texts, describe_dims, read_dims, texts_of

__all__ = ["EncoderFolder", "TextEncoder", "Texts", "describe_dims", "read_dims", "texts_of"]
