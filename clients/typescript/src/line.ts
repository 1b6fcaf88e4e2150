/** A lane of a line document. `marks` are pairs of a score and the number of users ahead of it. */
export interface LineLane {
  name: string;
  /** The lowest score that waits. Null if the lane is empty or before the draw. */
  front: number | null;
  marks: [score: number, ahead: number][];
  waiting?: number;
  admitted_per_second?: number | null;
}

/** The part of `GET /v1/queues/{queue}/line` that the position depends on. */
export interface LineDocument {
  queue_id?: string;
  version?: number;
  lanes: LineLane[];
}

/**
 * Returns the position of a score in its lane, starting at 1. The position is an upper bound: it is
 * never too low.
 *
 * Returns null if the document has no position for the score: the lane is empty or before the draw,
 * or the front has passed the score. In that case the user's own ticket has the answer.
 *
 * `lane` is the lane of the ticket. By default it is the last lane, where users without an
 * invitation wait. A queue without lanes has one.
 */
export function positionFromLine(
  line: LineDocument,
  score: number,
  lane?: string,
): number | null {
  const own = lane === undefined ? line.lanes.at(-1) : line.lanes.find((it) => it.name === lane);
  if (!own || own.front === null || own.front > score) return null;
  let below: [number, number] | undefined;
  let above: [number, number] | undefined;
  for (const mark of own.marks) {
    if (mark[0] <= score && (!below || mark[0] >= below[0])) below = mark;
    if (mark[0] > score && (!above || mark[0] < above[0])) above = mark;
  }
  // Scores are distinct integers, so at most `score - x` users are between a score x and this one.
  let position = score - own.front + 1;
  if (below) position = Math.min(position, below[1] + score - below[0] + 1);
  // This user is one of those ahead of the next mark.
  if (above) position = Math.min(position, above[1]);
  return position;
}
