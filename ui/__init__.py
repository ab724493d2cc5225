"""The chat: a NiceGUI app that knows the functions by their addresses only."""
