"""The position in a queue, computed from the published line document."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class LineLane(TypedDict):
    """A lane of a line document."""

    name: str
    #: The lowest score that waits. None if the lane is empty or before the draw.
    front: int | None
    #: Pairs of a score and the number of users ahead of it.
    marks: list[list[int]]
    waiting: NotRequired[int]
    admitted_per_second: NotRequired[float | None]


class LineDocument(TypedDict):
    """The part of `GET /v1/queues/{queue}/line` that the position depends on."""

    lanes: list[LineLane]
    queue_id: NotRequired[str]
    version: NotRequired[int]


def position_from_line(line: LineDocument, score: int, lane: str | None = None) -> int | None:
    """Returns the position of a score in its lane, starting at 1.

    The position is an upper bound: it is never too low.

    Returns None if the document has no position for the score: the lane is empty or before the
    draw, or the front has passed the score. In that case the user's own ticket has the answer.

    `lane` is the lane of the ticket. By default it is the last lane, where users without an
    invitation wait. A queue without lanes has one.
    """
    candidates = [item for item in line["lanes"] if lane in (None, item["name"])]
    if not candidates:
        return None
    own = candidates[-1]
    front = own["front"]
    if front is None or front > score:
        return None
    below = max((mark for mark in own["marks"] if mark[0] <= score), default=None)
    above = min((mark for mark in own["marks"] if mark[0] > score), default=None)
    # Scores are distinct integers, so at most `score - x` users are between a score x and this one.
    position = score - front + 1
    if below is not None:
        position = min(position, below[1] + score - below[0] + 1)
    # This user is one of those ahead of the next mark.
    if above is not None:
        position = min(position, above[1])
    return position
