"""Code that a hub folder of the dual encoder carries with it; it needs transformers alone, and peft for adapters."""
