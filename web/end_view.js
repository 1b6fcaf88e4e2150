// The view for the end of a journey: what happened, and the ways on.

import { startStep } from "./activity.js";
import { UsherError } from "./api.js";
import { $, describeProblem, setText, showView } from "./dom.js";
import { message } from "./messages.js";

let onAgain = () => {};

$("again").addEventListener("click", () => onAgain());

// Shows the end `reason`, which has a title and an explanation, or the texts `title` and `detail`.
// `label` names the button that calls `action`.
export function showEnd(reason, { title, detail, label = "error.retry", action }) {
  startStep();
  setText("reason", title ?? message(reason));
  setText("detail", detail ?? message(`${reason}.why`));
  setText("retrying", "");
  setText("again", message(label));
  onAgain = action;
  showView("over");
}

// Shows an error that ends the step. `action` tries again.
export function showProblem(problem, action) {
  if (!(problem instanceof UsherError)) throw problem;
  if (problem.code === "unauthenticated") {
    return showEnd("queue.signin", { detail: message("booking.header"), action });
  }
  showEnd("error", { title: message("error.title"), detail: describeProblem(problem), action });
}
