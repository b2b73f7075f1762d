// Work that a newer request replaces, and one line that says what went wrong.
const running = new Map();
const timers = new Map();
let told; // what the line is about

/** Run a task for the element of this id, which is busy meanwhile; it replaces the one that runs for it. */
export async function run(id, task) {
  cancel(id);
  const controller = new AbortController();
  running.set(id, controller);
  markBusy(id, true);
  try {
    await task(controller.signal);
    say(null, id);
  } catch (error) {
    if (error.name !== "AbortError") say(error, id);
  } finally {
    if (running.get(id) === controller) cancel(id);
  }
}

export function cancel(id) {
  running.get(id)?.abort();
  running.delete(id);
  markBusy(id, false);
}

export const isRunning = (id) => running.has(id);

/** Run a task once no other for this element has been asked for during 60 ms. */
export function soon(id, task) {
  clearTimeout(timers.get(id));
  timers.set(id, setTimeout(() => run(id, task), 60));
}

export function debounced(task, milliseconds) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => task(...values), milliseconds);
  };
}

/** Show an error until another one comes, or null about the same. */
export function say(error, about) {
  if (!error && about !== told) return;
  told = about;
  document.getElementById("status").textContent = error?.message ?? "";
}

function markBusy(id, busy) {
  document.getElementById(id).setAttribute("aria-busy", busy);
}
