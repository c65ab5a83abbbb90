"""Callbacks: what follows a training without changing it."""

from gmsa.training.callbacks.base import Callback, CallbackList, RunInfo, build_callbacks

__all__ = ["Callback", "CallbackList", "RunInfo", "build_callbacks"]
