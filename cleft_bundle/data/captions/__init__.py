"""Captions: prompts, templates, sentences of reports."""
