"""Checkpoints of open_clip, taken over into models and tokenizers of transformers."""
