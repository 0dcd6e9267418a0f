"""Image files: where they lie, their formats, opening pictures, what these note; an image's geometry, how it lies."""
