"""Image files: the geometry of an image, how it lies, opening pictures and what they note of themselves."""
