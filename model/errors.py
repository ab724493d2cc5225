"""The error of a model that cannot be used."""


class ModelError(Exception):
    """A model cannot be used; the message is one sentence that names the file and the reason."""
