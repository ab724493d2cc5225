"""The chat: one conversation in one browser tab."""
