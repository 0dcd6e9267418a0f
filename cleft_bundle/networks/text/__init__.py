"""Text towers: language models, their adapters, packed captions, learnt prompts."""
