"""Decoding: the sound and the pictures of a file on the clock of its clip, confined to that file."""
