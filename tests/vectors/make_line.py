#!/usr/bin/env python3
"""Writes line.json: scores, line documents and the positions that a client computes from them.

Usage: make_line.py [--check]

The expected positions do not come from the formula of the clients. A document is a set of facts
about the users who wait: the lowest score (`front`) and, for each mark, the number of users with a
lower score. The position of a score is the highest position that is possible under these facts. Two
methods compute it, and this script fails if they disagree:

- Small cases: try every set of users that agrees with the document.
- All cases: shortest paths over upper bounds of the differences between counts (Bellman-Ford).

For a line that is given in full, the script also checks the promise of the service: the position is
never too low and at most one sixteenth too high.
"""

import json
import random
import sys
from itertools import combinations, pairwise
from pathlib import Path

OUTPUT = Path(__file__).with_name("line.json")
SEED = 15
# Sets of users are tried only up to this number of free scores.
MAX_FREE_SCORES = 16


def by_all_sets(front: int, marks: list[tuple[int, int]], score: int) -> int | None:
    """The highest position of the score over all sets of users that agree with the document."""
    top = max([score, *(mark for mark, _ in marks)])
    if top - front > MAX_FREE_SCORES:
        return None
    free = [it for it in range(front + 1, top + 1) if it != score]
    highest = None
    for size in range(len(free) + 1):
        for chosen in combinations(free, size):
            users = {front, score, *chosen}
            if all(sum(user < mark for user in users) == ahead for mark, ahead in marks):
                position = sum(user < score for user in users) + 1
                highest = position if highest is None else max(highest, position)
    assert highest is not None, "no line agrees with the document"
    return highest


def by_shortest_path(front: int, marks: list[tuple[int, int]], score: int) -> int:
    """The same as the shortest path from the front to the score.

    Let n(x) be the number of users with a score below x. An edge (x, y, w) means n(y) - n(x) <= w.
    """
    points = sorted({front, front + 1, score, score + 1, *(mark for mark, _ in marks)})
    edges = []
    for low, high in pairwise(points):
        # Scores are distinct integers, and counts do not decrease.
        edges += [(low, high, high - low), (high, low, 0)]
    # The user with the front score and the user with the score wait.
    for user in (front, score):
        edges += [(user, user + 1, 1), (user + 1, user, -1)]
    for mark, ahead in marks:
        edges += [(front, mark, ahead), (mark, front, -ahead)]
    distance = {point: float("inf") for point in points}
    distance[front] = 0
    for _ in points:
        for low, high, bound in edges:
            distance[high] = min(distance[high], distance[low] + bound)
    return int(distance[score]) + 1


def expected(front: int | None, marks: list[tuple[int, int]], score: int) -> int | None:
    if front is None or score < front:
        return None
    position = by_shortest_path(front, marks, score)
    tried = by_all_sets(front, marks, score)
    assert tried is None or tried == position, (front, marks, score, tried, position)
    return position


def lane(name: str, front: int | None, marks: list[tuple[int, int]], waiting: int) -> dict:
    pairs = [list(mark) for mark in marks]
    return {
        "name": name,
        "front": front,
        "marks": pairs,
        "waiting": waiting,
        "admitted_per_second": 10,
    }


def case(name: str, lanes: list[dict], score: int, own: str | None = None) -> dict:
    document = {
        "queue_id": "demo",
        "version": 1,
        "at": "2026-12-01T10:00:00.000Z",
        "mode": "open",
        "opens_at": None,
        "closes_at": None,
        "messages": {},
        "waiting": sum(item["waiting"] for item in lanes),
        "lanes": lanes,
        "next_ms": 2000,
    }
    chosen = next(item for item in lanes if own in (None, item["name"]))
    marks = [(mark, ahead) for mark, ahead in chosen["marks"]]
    position = expected(chosen["front"], marks, score)
    entry = {"name": name, "score": score, "position": position, "document": document}
    return {**entry, "lane": own} if own else entry


def one(
    name: str, front: int | None, marks: list[tuple[int, int]], score: int, waiting: int
) -> dict:
    return case(name, [lane("default", front, marks, waiting)], score)


def marks_of(users: list[int], step: float) -> list[tuple[int, int]]:
    """Marks whose distance grows with the position, and one behind the last user."""
    marks, ahead = [], 0
    while ahead < len(users):
        marks.append((users[ahead], ahead))
        ahead += max(1, int(ahead * step))
    return [*marks, (users[-1] + 1, len(users))]


def from_line(name: str, users: list[int], index: int) -> dict:
    """A case from a line that is given in full."""
    entry = one(name, users[0], marks_of(users, 1 / 16), users[index], len(users))
    position, actual = entry["position"], index + 1
    assert actual <= position <= actual + actual / 16, (name, actual, position)
    return entry


def cases() -> list[dict]:
    chance = random.Random(SEED)
    dense = list(range(1000, 2000))
    sparse = sorted(chance.sample(range(1 << 40), 100_000))
    ten_million = 10_000_000
    uniform = [ahead * 109_951 for ahead in (0, 1, 1_000, 500_000, 9_999_000)]
    large_marks = [(score, score // 109_951) for score in uniform]
    lanes = [lane("members", 50, [(50, 0), (60, 4)], 9), lane("default", 7, [(7, 0), (19, 5)], 8)]
    return [
        one("an empty lane has no positions", None, [], 5, 0),
        one("before the draw there are no positions", None, [[10, 0]], 12, 3),
        one("the first user", 5, [(5, 0)], 5, 1),
        one("the front has passed the score", 9, [(9, 0)], 5, 4),
        one("the score before the front", 9, [(9, 0)], 8, 4),
        one("no marks: only the front bounds the position", 5, [], 9, 7),
        one("no marks: the front itself", 5, [], 5, 7),
        one("on a mark", 5, [(5, 0), (9, 3), (14, 6)], 9, 9),
        one("directly behind a mark", 5, [(5, 0), (9, 3), (14, 6)], 10, 9),
        one("between marks the distance to the lower one bounds", 5, [(5, 0), (20, 12)], 8, 20),
        one("between marks the upper one bounds", 5, [(5, 0), (20, 4)], 18, 20),
        one("directly before a mark", 5, [(5, 0), (9, 3), (14, 6)], 13, 9),
        one("both marks give the same bound", 5, [(5, 0), (12, 4)], 8, 6),
        one("behind the last mark", 5, [(5, 0), (9, 3)], 15, 9),
        one("far behind the last mark", 5, [(5, 0), (9, 3)], 1_000_009, 9),
        one("all marks are above the score", 5, [(12, 4), (20, 9)], 8, 12),
        one("all marks are above the score: the first one bounds", 5, [(12, 2), (20, 9)], 9, 12),
        one("two marks with all users between them", 5, [(5, 0), (8, 3), (12, 4), (15, 5)], 8, 6),
        one("score 0", 0, [(0, 0), (6, 2)], 0, 5),
        one("large scores stay exact", 2**52, [(2**52, 0), (2**52 + 40, 7)], 2**52 + 5, 30),
        one("marks in any order", 5, [(14, 6), (5, 0), (9, 3)], 11, 9),
        case("a lane by name", lanes, 55, "members"),
        case("another lane by name", lanes, 12, "default"),
        from_line("consecutive scores: the head", dense, 0),
        from_line("consecutive scores: the middle", dense, 517),
        from_line("consecutive scores: the tail", dense, 999),
        from_line("a lottery: near the head", sparse, 3),
        from_line("a lottery: the middle", sparse, 43_210),
        from_line("a lottery: the tail", sparse, 99_999),
        one("ten million: the middle", 0, large_marks, 109_951 * 250_000, ten_million),
        one("ten million: the tail", 0, large_marks, 109_951 * 9_999_500, ten_million),
    ]


def main() -> None:
    lines = [json.dumps(entry) for entry in cases()]
    text = '{"cases": [\n' + ",\n".join(lines) + "\n]}\n"
    if "--check" in sys.argv[1:]:
        if OUTPUT.read_text(encoding="utf-8") != text:
            sys.exit("line.json is out of date. Run: tests/vectors/make_line.py")
    else:
        OUTPUT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
