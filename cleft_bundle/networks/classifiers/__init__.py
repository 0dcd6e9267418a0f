"""Classifiers of images: as trained, zero-shot, deployed, exported."""
