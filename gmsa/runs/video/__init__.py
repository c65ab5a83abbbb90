"""From a video to an answer, by a run that was trained on extracted media."""

from gmsa.runs.video.answer import Answerer, answer
from gmsa.runs.video.files import answer_files

__all__ = ["Answerer", "answer", "answer_files"]
