"""Applications of the bundle in other programs."""
