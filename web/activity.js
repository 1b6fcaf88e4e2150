// Waits that respect the state of the tab: a restored connection and a shown tab continue at once.

const timers = new Map();
let timerWorker = null;
let lastTimer = 0;

// Calls `action` after `ms`. Returns what cancels it. Browsers let the timers of a hidden tab end
// once a minute, which is too late for a turn in the queue. Those of a worker keep their time.
function startTimer(ms, action) {
  if (!document.hidden || !("Worker" in window)) {
    const timer = setTimeout(action, ms);
    return () => clearTimeout(timer);
  }
  if (!timerWorker) {
    timerWorker = new Worker("/assets/timer_worker.js");
    timerWorker.addEventListener("message", ({ data: id }) => {
      const end = timers.get(id);
      timers.delete(id);
      end?.();
    });
  }
  const id = (lastTimer += 1);
  timers.set(id, action);
  timerWorker.postMessage({ id, ms });
  return () => timers.delete(id);
}

// Resolves after `ms`, or earlier when the tab is shown, the connection returns or `signal` aborts.
export function waitOrWake(ms, signal) {
  return new Promise((resolve) => {
    const end = new AbortController();
    const finish = () => {
      cancelTimer();
      end.abort();
      resolve();
    };
    const cancelTimer = startTimer(ms, finish);
    const options = { signal: end.signal };
    window.addEventListener("online", finish, options);
    signal?.addEventListener("abort", finish, options);
    const onShown = () => document.hidden || finish();
    document.addEventListener("visibilitychange", onShown, options);
    if (signal?.aborted) finish();
  });
}

// Resolves when the tab is visible or `signal` aborts.
export async function whenVisible(signal) {
  while (document.hidden && !signal.aborted) await waitOrWake(2 ** 30, signal);
}

// Waits before a retry and shows the rest in seconds. `onRest(seconds)` is called once a second.
export async function countDown(ms, onRest, signal) {
  const end = Date.now() + ms;
  while (Date.now() < end && !signal.aborted) {
    onRest(Math.ceil((end - Date.now()) / 1000));
    const wokenAt = Date.now();
    const step = Math.min(1000, end - wokenAt);
    await waitOrWake(step, signal);
    // The connection is back, or the visitor looks at the page again.
    if (Date.now() - wokenAt < step - 50) return;
  }
}

let step = new AbortController();

// Starts a new step of the page: ends the loops of the previous one and returns the signal for the
// new one.
export function startStep() {
  step.abort();
  step = new AbortController();
  return step.signal;
}
