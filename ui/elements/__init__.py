"""The small elements that every page is made of."""
