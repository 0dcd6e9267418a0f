"""What the strategies choose by."""
