"""The frame of every page: its head, and the name in its header."""

from nicegui import ui

from ui import assets
from ui.elements.theme import ThemeChoice

VIEWPORT = (
    "width=device-width, initial-scale=1, viewport-fit=cover, interactive-widget=resizes-content"
)


def add_page_head(title: str) -> ThemeChoice:
    """Give the page its title, style and script; return the visitor's theme."""
    theme = ThemeChoice()
    ui.page_title(title)
    ui.add_head_html(
        f"<style>{theme.first_style}</style>"
        f'<link rel="stylesheet" href="{assets.STYLE_URL}">'
        f'<script defer src="{assets.SCRIPT_URL}"></script>'
    )
    return theme


def add_brand() -> None:
    """Add the logo and the name, as a link to the chat."""
    with ui.element("a").classes("brand").props('href="/" aria-label="piBLOOM, the chat"'):
        add_logo("brand-logo")
        ui.html("pi<b>BLOOM</b>", sanitize=False, tag="span").classes("brand-name")


def add_logo(css_class: str) -> None:
    """Add the logo as a decoration that a screen reader skips."""
    logo = ui.html(assets.LOGO, sanitize=False, tag="span").classes(css_class)
    logo.props('aria-hidden="true"')
