"""Hearing: where someone speaks, the words with their times, and the states of the encoder that heard them."""
