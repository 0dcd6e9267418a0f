"""Scores that the strategies choose by."""
