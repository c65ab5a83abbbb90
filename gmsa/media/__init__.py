"""Raw media: from a video to words, and features of text, audio and vision with their times (the extra ``media``)."""

from gmsa.media.types import Face, MediaError, Missing, Steps, Word

__all__ = ["Face", "MediaError", "Missing", "Steps", "Word"]
