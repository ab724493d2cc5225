"""Types of fields that the request bodies of several families of routes share."""

from typing import Annotated, Any

from msgspec import Meta

NonEmptyText = Annotated[str, Meta(min_length=1)]
# No upper bound of ours: a reply has at most `ranges.MOST_TOKENS`, and what there is room for.
TokenLimit = Annotated[int, Meta(ge=1, le=2**31 - 1)]
TopLogprobs = Annotated[int, Meta(ge=0, le=20)]
# A field that cannot change the answer of a model that only writes text.
Ignored = Annotated[Any, Meta(description="accepted; it changes nothing here")]
# A field that would change the answer. It is accepted here so that the refusal can show its value.
Unsupported = Annotated[Any, Meta(description="not supported: only null is taken")]
