"""The icons, drawn for the chat: strokes on a grid of 24 by 24, in the colour of the text."""

_PATHS = {
    "send": "M12 20V5M5.5 11.5 12 5l6.5 6.5",
    "stop": "M6 6h12v12H6z",
    "new": "M12 5v14M5 12h14",
    "settings": "M4 7h9M19 7h1M4 17h1M11 17h9M16 4.8v4.4M8 14.8v4.4",
    "about": "M12 11v6M12 7.2v.1M21 12a9 9 0 1 1-18 0 9 9 0 0 1 18 0z",
    "back": "M19 12H5M11 6l-6 6 6 6",
    "copy": "M9 9h11v11H9zM5 15H4V4h11v1",
    "again": "M19.5 12a7.5 7.5 0 1 1-2.3-5.4M19.5 3.5v4h-4",
    "close": "M6 6l12 12M18 6 6 18",
    "down": "M12 5v14M5.5 12.5 12 19l6.5-6.5",
    "alert": "M12 9v4.5M12 16.8v.1M10.4 4.2 2.8 17.6A1.8 1.8 0 0 0 4.4 20.3h15.2a1.8 1.8 0 0 0"
    " 1.6-2.7L13.6 4.2a1.8 1.8 0 0 0-3.2 0z",
    "check": "M5 12.5 10 17.5 19.5 7",
    "queue": "M12 7.5V12l3 2M21 12a9 9 0 1 1-18 0 9 9 0 0 1 18 0z",
    "read": "M12 6.5C10 5 7 4.5 3.5 5v13c3.5-.5 6.5 0 8.5 1.5M12 6.5c2-1.5 5-2 8.5-1.5v13c-3.5-.5"
    "-6.5 0-8.5 1.5M12 6.5v13",
    "write": "M4 20l1-4L16.5 4.5a1.8 1.8 0 0 1 2.5 0l.5.5a1.8 1.8 0 0 1 0 2.5L8 19zM14 7l3 3",
    "wake": "M12 3v2.5M12 18.5V21M3 12h2.5M18.5 12H21M5.6 5.6l1.8 1.8M16.6 16.6l1.8 1.8M18.4 5.6"
    "l-1.8 1.8M7.4 16.6l-1.8 1.8M15.5 12a3.5 3.5 0 1 1-7 0 3.5 3.5 0 0 1 7 0z",
    "ask": "M4 5h16v11H11l-4 4v-4H4z",
    "undo": "M8 5 4 9l4 4M4 9h10a5.5 5.5 0 0 1 0 11H9",
    "edit": "M4 20l1-4L16.5 4.5a1.8 1.8 0 0 1 2.5 0l.5.5a1.8 1.8 0 0 1 0 2.5L8 19z",
}


def icon(name: str) -> str:
    """Return an icon as SVG; it says nothing to a screen reader, so give its button a label."""
    return (
        '<svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">'
        f'<path d="{_PATHS[name]}"/></svg>'
    )
