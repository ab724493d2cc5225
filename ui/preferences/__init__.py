"""A visitor's settings: how replies are sampled, and the theme."""
