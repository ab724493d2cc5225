"""The two functions, as the chat calls them over HTTP."""
