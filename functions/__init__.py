"""piBLOOM's HTTP functions, and what they share."""

from model.version import version as version
