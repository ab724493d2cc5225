"""The packets that a page sends by its socket; everything else is refused."""

import re
from typing import Annotated, Literal

from nicegui import json
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

MAX_POLL_PACKETS = 16  # engine.io's own limit for a long poll

Id = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class PacketError(Exception):
    """A packet that no page sends; the message holds nothing of it."""


class PageMessage(BaseModel):
    """A message of a page; `client_id` says which page."""

    model_config = ConfigDict(strict=True)

    client_id: Id


class Handshake(PageMessage):
    """The first message of a page: which page it is, and in which tab."""

    tab_id: Id
    document_id: Id
    old_tab_id: Id | None = None
    next_message_id: int | Annotated[str, StringConstraints(pattern=r"^[0-9]{1,15}$")] | None = None


class ElementEvent(PageMessage):
    """What happened to an element."""

    id: int
    listener_id: Id
    args: list[str | None] = []


class ScriptResult(PageMessage):
    """What a script returned that the server sent to the page."""

    request_id: Id


class Acknowledgement(PageMessage):
    """Which messages have arrived."""

    next_message_id: int


class LogLine(PageMessage):
    """A line that the page would like to log."""

    level: Literal["debug", "info", "warning", "error"]
    message: str


MESSAGES: dict[str, type[PageMessage]] = {
    "handshake": Handshake,
    "event": ElementEvent,
    "javascript_response": ScriptResult,
    "ack": Acknowledgement,
    "log": LogLine,
}
CLOSE = "1"
# Close, probe, pong and upgrade of engine.io, and connect and disconnect of socket.io.
BARE_PACKETS = frozenset({CLOSE, "2probe", "3", "5", "40", "41"})
EVENT_PACKET = re.compile(r"42[0-9]{0,15}(?=\[)")


def check_packet(packet: str) -> None:
    """Raise `PacketError` unless this is a packet that a page sends."""
    if packet in BARE_PACKETS:
        return
    start = EVENT_PACKET.match(packet)
    if start is None:
        raise PacketError("not a packet of a page")
    try:
        match json.loads(packet[start.end() :]):
            case [str(name), dict(content)] if name in MESSAGES:
                MESSAGES[name].model_validate(content)
            case _:
                raise PacketError("not an event of a page")
    except (ValidationError, ValueError, RecursionError):
        raise PacketError("an event with other contents than a page's") from None


def check_payload(body: bytes) -> None:
    """Raise `PacketError` unless this is the body of a page's long poll: up to 16 packets."""
    try:
        packets = body.decode().split("\x1e")
    except UnicodeDecodeError:
        raise PacketError("a payload that is not UTF-8") from None
    if len(packets) > MAX_POLL_PACKETS:
        raise PacketError("too many packets in a payload")
    if CLOSE in packets[:-1]:
        raise PacketError("a packet after the last")
    for packet in packets:
        check_packet(packet)
