"""Public datasets, a module each, and folders of one's own."""
