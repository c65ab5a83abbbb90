"""Sound: the states of Whisper's encoder, from the pass that recognizes the words."""

from __future__ import annotations

from collections.abc import Mapping

from gmsa.errors import ConfigError
from gmsa.media.protocol import Media
from gmsa.media.types import Steps


class WhisperStates:
    """States of the encoder of the Whisper model that recognizes the words: 50 a second.

    They cost nothing besides the words. The weights are those of ``transcript.model``, and the fingerprint of the
    recognizer is theirs.

    Args:
        width: features of a state: 384 in tiny, 512 in base, 768 in small, 1024 in medium, 1280 in large.
    """

    name, modality, version = "whisper", "audio", 1

    def __init__(self, width: int = 384) -> None:
        self.width = width
        self.columns = tuple(f"whisper_{i}" for i in range(width))

    def fingerprint(self) -> Mapping[str, str]:
        """The number of features; all else is the recognizer's."""
        return {"width": str(self.width)}

    def __call__(self, media: Media) -> Steps:
        """Extracts the states of the whole sound.

        Raises:
            Missing: there is none.
            ConfigError: the model's states have another number of features.
        """
        found = media.encoded()
        if (width := found.values.shape[1]) != self.width:
            raise ConfigError(
                f"'audio: whisper': the states of 'transcript.model' have {width} features, not {self.width}; "
                f"set it to whisper(width={width})"
            )
        return found
