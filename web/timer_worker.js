// Timers for hidden tabs: answers `{ id, ms }` with the id after that time.

self.addEventListener("message", ({ data: { id, ms } }) => {
  setTimeout(() => self.postMessage(id), ms);
});
