"""Which page each browser tab has open."""

from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class TabPage(Protocol):
    """A page that can end what runs for it."""

    def leave(self) -> None:
        """End everything that runs for the page."""


Page = TypeVar("Page", bound=TabPage)


@dataclass
class Tabs(Generic[Page]):
    """The page that each browser tab has open now, by the tab's id."""

    pages: dict[str, Page] = field(default_factory=dict)

    def take(self, tab: str, page: Page) -> None:
        """Make `page` the tab's page; the one before it, if still there, is left first."""
        before = self.pages.get(tab)
        if before is not None:
            before.leave()
        self.pages[tab] = page

    def drop(self, tab: str, page: Page) -> None:
        """Forget a page that is gone, unless another one has taken its place."""
        if self.pages.get(tab) is page:
            del self.pages[tab]
