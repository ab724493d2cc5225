"""What can be wrong with a model, told to the person who chose it."""


class ModelError(Exception):
    """A model that cannot be used; the message is one sentence that names the file and why."""
