"""Every HTML page, under one template engine."""
