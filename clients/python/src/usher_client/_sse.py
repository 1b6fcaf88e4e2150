"""Parses server-sent events (WHATWG HTML)."""

from __future__ import annotations

from typing import NamedTuple


class StreamEvent(NamedTuple):
    event: str
    data: str


class EventParser:
    """Parses the lines of a stream, without their line ends."""

    def __init__(self) -> None:
        #: The reconnection delay that the service asked for, in milliseconds.
        self.retry_ms: int | None = None
        self._event = ""
        self._data: list[str] = []

    def push(self, line: str) -> StreamEvent | None:
        """Returns the event that the line completes."""
        if line == "":
            event = StreamEvent(self._event or "message", "\n".join(self._data))
            is_empty = not self._data
            self._event, self._data = "", []
            return None if is_empty else event
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._event = value
        elif field == "data":
            self._data.append(value)
        elif field == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = int(value)
        # Other fields, and comments, whose field is empty, carry nothing for this client.
        return None
