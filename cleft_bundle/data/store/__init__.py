"""Images after their deterministic transforms in one memory-mapped store per machine; where to keep them."""
