"""Scoring: which utterances of a file to score, several runs on several data sets, and answers of other systems."""
