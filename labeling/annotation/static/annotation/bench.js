// The bench: one task at a time, the next one fetched ahead, everything by key, by mouse and by finger.
//
//   <div data-bench data-next-url data-bench-url data-undo-url data-user …>
//     <form data-task="12" data-layout="tiers|pair|rating|writing" …>  (templates/annotation/_task.html; see task.js)
//     <section data-nothing hidden>
//   </div>

import { blur, Care } from "care";
import { afterPaint, Clock, Draft, NetworkDown, Outbox, post } from "draft";
import { _, fill, ngettext } from "i18n";
import { keysOf, labelKeys } from "keys";
import * as Ranking from "ranking";
import { bindKeys, printHelp } from "shortcuts";
import { Task } from "task";

const place = document.querySelector("[data-bench]");
const nothing = place.querySelector("[data-nothing]");
const live = document.querySelector("[data-announce]");
const stateBox = document.querySelector(".bench-state");
const helpDialog = document.querySelector("[data-help-dialog]");
const skipDialog = document.querySelector("[data-skip-dialog]");
const feedbackDialog = document.querySelector("[data-feedback-dialog]");
const reportDialog = document.querySelector("[data-report-dialog]");
const wordBox = document.querySelector("[data-word]");
const narrow = matchMedia("(max-width: 899px)");
const BEST_FIRST = "prefloop.best-first";

let task = null; // what is on the bench
let ahead = null; // the next task, not yet shown
let fetching = null; // a prefetch on its way
let awaiting = null; // the lease whose answer must come before there is a next task
let undoUrl = place.dataset.undoUrl;
let renewedAt = performance.now();
let stopWaiting = null;
const sent = new Map(); // lease -> its task, until the server has taken it
const ended = new Set(); // leases submitted or given back here: an answer that was long on its way may still bring one

const clock = new Clock();
const outbox = new Outbox({ user: place.dataset.user, onState: showState, onAnswer: answered });
const care = new Care({
  breakMinutes: Number(place.dataset.breakMinutes) || 0,
  warnsWhenFast: Boolean(place.dataset.warnsWhenFast),
  clock,
  word: showWord,
});

// --- one task -------------------------------------------------------------------------------------
/** A form from the server as a task; one that was on the bench before comes back as it was left. */
function taskOf(form) {
  return new Task(form, {
    onChange: () => task?.draft?.changed(),
    onSubmit: submit,
    announce,
    say,
    isNarrow: () => narrow.matches,
  });
}

function open(next) {
  task = next;
  const { form } = task;
  task.draft = new Draft({ url: form.dataset.draftUrl, lease: form.dataset.task, user: place.dataset.user, read: bodyOf.bind(null, task), onState: draftState });
  const unsaved = task.draft.unsaved();
  if (unsaved) task.fill(new URLSearchParams(unsaved));
  task.lost = false;
  clock.restart(Number(form.elements.seconds.value) || 0);
  renewedAt = performance.now();
  form.removeAttribute("aria-busy");
  if (form.dataset.blur && !task.isRevealed) blur(form, { isOn: true });
  labelKeys(form, keysOf({ task, actions }));
  showBestFirst();
  task.render();
  task.clamp();
  task.begin();
  if (unsaved) task.draft.changed();
}

function bodyOf(one) {
  clock.tick();
  if (one === task) one.form.elements.seconds.value = clock.seconds.toFixed(1);
  return one.body();
}

// --- on to the next -------------------------------------------------------------------------------
function submit() {
  if (awaiting || !task.form.querySelector("[data-submit]")) return;
  if (task.stopsAtMissing()) return;
  task.marking?.end();
  const { form, lease, draft } = task;
  const holding = [ahead?.lease, ...outbox.leases].filter(Boolean);
  const body = bodyOf(task);
  body.append("holding", holding.join(","));
  const revision = Boolean(form.dataset.revision);
  const instant = !revision && ahead !== null;
  const [done, { seconds }] = [task, clock];
  draft.drop();
  sent.set(lease, task);
  if (!revision) ended.add(lease);
  if (!instant) {
    awaiting = lease;
    form.setAttribute("aria-busy", "true");
    say(_("Saving …"));
  }
  outbox.post({ lease, revision, url: instant || revision ? form.action : `${form.action}?next=1`, body: String(body) });
  if (instant) show(takeAhead());
  if (!revision) afterPaint(() => care.submitted({ seconds, words: done.nWords }));
}

function answered(item, answer) {
  const of = sent.get(item.lease);
  sent.delete(item.lease);
  const waited = awaiting === item.lease;
  if (waited) {
    awaiting = null;
    of?.form.removeAttribute("aria-busy");
  }
  if (answer.figures) showFigures(answer.figures);
  if (answer.undo_url !== undefined) undoUrl = answer.undo_url;
  if (answer.state === "invalid" && of) {
    // The rules on the server are stricter than ours: back with it, nothing is lost.
    if (task && task !== of) putBack(task);
    show(of);
    task.draft.changed();
    return say(fill(_("The server did not take this one: %(why)s"), { why: answer.message }));
  }
  if (item.revision) {
    if (answer.ok) return location.assign(place.dataset.benchUrl);
    return say(answer.message ?? _("This judgement can't be revised any more"));
  }
  if (waited) {
    if (answer.next) show(taskOf(formFrom(answer.next)));
    else if (answer.guideline) showReading(answer.guideline);
    else next();
  }
  if (answer.feedback) showFeedback(answer.feedback);
  if (answer.state === "surplus") say(answer.message);
  else if (!answer.ok) say(fill(_("Your last judgement was not taken: %(why)s"), { why: answer.message ?? _("it is no longer yours to make") }));
  if (!ahead) prefetch();
}

function takeAhead() {
  const taken = ahead;
  ahead = null;
  return taken;
}

/** A task that has to step aside for another becomes the next one. */
function putBack(one) {
  one.draft.flush();
  ahead ??= one;
}

function formFrom(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  // A template is parsed as if there were no scripts, so what is meant for that case would be live in it.
  for (const element of template.content.querySelectorAll("noscript")) element.remove();
  return template.content.querySelector("[data-task]");
}

async function prefetch() {
  if (ahead || fetching || !task || task.form.dataset.revision) return;
  const holding = [task.lease, ...outbox.leases, ...sent.keys()];
  fetching = post(place.dataset.nextUrl, new URLSearchParams({ holding: [...new Set(holding)].join(",") }));
  try {
    const answer = await fetching;
    const form = answer.task ? formFrom(answer.task) : null;
    if (form && !holdsAlready(Number(form.dataset.task))) ahead = taskOf(form);
  } catch (error) {
    if (!(error instanceof NetworkDown)) throw error;
  } finally {
    fetching = null;
  }
}

const holdsAlready = (lease) => lease === task?.lease || lease === ahead?.lease || ended.has(lease) || outbox.has(lease);

/** The next task, from what was fetched ahead or else from the server. */
async function next() {
  if (fetching) await fetching.catch(() => {});
  if (ahead) return show(takeAhead());
  try {
    const answer = await post(place.dataset.nextUrl, new URLSearchParams({ holding: outbox.leases.join(",") }));
    if (answer.guideline) return showReading(answer.guideline);
    if (answer.nothing) sayWhyNothing(answer.nothing);
    show(answer.task ? taskOf(formFrom(answer.task)) : null);
  } catch (error) {
    showState(error.reason ?? "offline");
    say(_("The next task can't be fetched while the network is away. It comes by itself."));
    setTimeout(next, 3000);
  }
  return undefined;
}

function show(next) {
  const old = place.querySelector("[data-task]");
  reading()?.remove();
  // The answer to a submit may bring the very task that was fetched ahead meanwhile.
  if (next && next.lease === ahead?.lease) ahead = null;
  stopWaiting?.();
  stopWaiting = null;
  if (!next) {
    old?.remove();
    task = null;
    nothing.hidden = false;
    nothing.querySelector("h1").focus();
    announce(nothing.querySelector("h1").textContent);
    return waitForTasks();
  }
  nothing.hidden = true;
  const { form } = next;
  if (old && old !== form) old.replaceWith(form);
  else if (!old) place.prepend(form);
  window.scrollTo(0, 0);
  open(next);
  form.querySelector("[data-prompt]").focus({ preventScroll: true });
  const n = task.keys.length;
  announce(fill(ngettext("Next task, %(n)s completion", "Next task, %(n)s completions", n), { n }));
  afterPaint(prefetch);
}

// --- what changed in the guideline ------------------------------------------------------------------
const reading = () => place.querySelector("[data-reading]");

/** In place of a task: read this first. What is on its way stays on its way. */
function showReading(html) {
  const template = document.createElement("template");
  template.innerHTML = html; // our own server's template
  stopWaiting?.();
  stopWaiting = null;
  place.querySelector("[data-task]")?.remove();
  reading()?.remove();
  cameWithPage = false;
  task = null;
  nothing.hidden = true;
  place.prepend(template.content);
  window.scrollTo(0, 0);
  beginReading();
}

function beginReading() {
  const title = reading().querySelector("[data-reading-title]");
  reading().querySelector("[data-reading-form]").addEventListener("submit", (event) => { event.preventDefault(); haveRead(); });
  title.focus({ preventScroll: true });
  announce(title.textContent);
}

let isConfirming = false;
let cameWithPage = Boolean(reading());

async function haveRead() {
  const form = reading()?.querySelector("[data-reading-form]");
  if (!form || isConfirming) return;
  isConfirming = true;
  try {
    const answer = await post(form.action, new URLSearchParams(new FormData(form)));
    if (!answer.ok) showState("refused");
    else if (cameWithPage) location.assign(place.dataset.benchUrl); // which may lead to conversations
    else await next();
  } catch (error) {
    if (!(error instanceof NetworkDown)) throw error;
    showState(error.reason);
    announce(_("The network is away, so this can't be confirmed yet. Try again in a moment."));
  } finally {
    isConfirming = false;
  }
}

function sayWhyNothing(html) {
  const template = document.createElement("template");
  template.innerHTML = html; // our own server's template
  const heading = template.content.querySelector("h1").textContent;
  if (heading !== nothing.querySelector("h1").textContent) nothing.replaceChildren(template.content);
}

/** Somebody who is qualifying is told of each answer; the next task waits below. */
function showFeedback(html) {
  const box = feedbackDialog.querySelector("[data-feedback-text]");
  box.innerHTML = html; // our own server's template
  if (!feedbackDialog.open) feedbackDialog.showModal();
  announce(box.querySelector("h2").textContent.trim());
}

feedbackDialog.addEventListener("close", () => {
  clock.restart(Number(task?.form.elements.seconds.value) || 0);
  (task?.form.querySelector("[data-prompt]") ?? nothing.querySelector("h1")).focus({ preventScroll: true });
});

/** An empty bench looks for work when the project changes, and now and then. */
function waitForTasks() {
  let stopped = false;
  const look = async () => {
    if (stopped || document.visibilityState !== "visible") return;
    const answer = await post(place.dataset.nextUrl, "holding=").catch(() => null);
    if (stopped) return;
    if (answer?.guideline) return showReading(answer.guideline);
    if (answer?.nothing) sayWhyNothing(answer.nothing);
    if (answer?.task) show(taskOf(formFrom(answer.task)));
    return undefined;
  };
  const timer = setInterval(look, 20_000);
  let unwatch = () => {};
  import("live")
    .then(({ watch }) => { unwatch = stopped ? unwatch : watch(place.dataset.livePath, { onEvent: look, onPoll: look }); })
    .catch(() => {});
  stopWaiting = () => {
    stopped = true;
    clearInterval(timer);
    unwatch?.();
  };
}

// --- the lease ------------------------------------------------------------------------------------
async function renew() {
  if (!task?.form.dataset.renewUrl || task.lost) return;
  const seconds = Number(task.form.dataset.leaseSeconds);
  const since = (performance.now() - renewedAt) / 1000;
  // Nobody there for half a lease: let it run out, and someone else gets the task.
  if (since < seconds / 3 || clock.idle > seconds / 2 || document.visibilityState !== "visible") return;
  renewedAt = performance.now();
  const current = task;
  try {
    const answer = await post(task.form.dataset.renewUrl);
    if (!answer.ok && task === current) lost(answer);
    if (ahead) {
      const kept = await post(ahead.form.dataset.renewUrl);
      if (!kept.ok) { ahead = null; prefetch(); }
    }
  } catch (error) {
    if (!(error instanceof NetworkDown)) throw error;
  }
}

function lost(answer) {
  task.lost = true;
  const words = answer.expired === false
    ? _("This task is closed: it was submitted or skipped, perhaps in another tab.")
    : _("The time on this task ran out and it went back to the queue. Submit all the same: it counts if nobody else took it, and is kept as an extra if somebody did.");
  say(words, { label: _("Next task"), run: () => { task.draft.drop(); next(); } });
}

function draftState(state, message) {
  if (state === "lease_lost" && task && !task.lost) return lost({ expired: false, message });
  showState(state);
}

// --- words ----------------------------------------------------------------------------------------
const STATES = {
  saved: _("saved"),
  saving: _("saving"),
  offline: _("offline, kept here"),
  "logged-out": _("logged out: log in in another tab, this is kept here"),
  server: _("server busy, kept here"),
  refused: _("not taken"),
};

function showState(state, waiting = outbox?.waiting.length ?? 0) {
  if (!STATES[state]) return;
  stateBox.classList.remove("is-quiet");
  stateBox.dataset.state = state;
  const more = waiting > 0 && state !== "saving" && state !== "saved" ? ` · ${fill(_("%(n)s to send"), { n: waiting })}` : "";
  const text = stateBox.querySelector("[data-state-text]");
  if (text.textContent !== STATES[state] + more) text.textContent = STATES[state] + more;
}

function showFigures(html) {
  const template = document.createElement("template");
  template.innerHTML = html; // our own server's template
  document.querySelector("[data-figures]").replaceChildren(template.content);
}

/** A word from the site itself; it stays until it is read, and takes no focus. */
function showWord(text) {
  wordBox.querySelector("[data-word-text]").textContent = text;
  wordBox.hidden = false;
}

function say(words, action = null) {
  const box = task?.form.querySelector("[data-said]");
  if (!box) return words ? announce(words) : undefined;
  if (!words && !box.textContent.trim()) return undefined;
  box.textContent = words;
  if (action) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "button";
    button.textContent = action.label;
    button.addEventListener("click", (event) => { event.stopPropagation(); action.run(); });
    box.append(" ", button);
  }
  return undefined;
}

function announce(words) {
  live.textContent = words;
}

// --- keys -----------------------------------------------------------------------------------------
const actions = {
  submit,
  undo() {
    if (task?.undo()) return announce(_("Undone"));
    if (task?.form.dataset.revision) return say(_("Nothing more to undo"));
    if (outbox.waiting.length) return say(_("Your last judgement is still on its way; it can be reopened once it is saved."));
    if (!undoUrl) return say(_("Nothing to undo yet"));
    task?.draft.flush({ keepalive: true });
    return location.assign(undoUrl);
  },
  tie() { if (task.picked) task.change(task.picked, Ranking.tie(task.ranking, task.picked)); },
  picksBestFirst: () => localStorage.getItem(BEST_FIRST) === "1",
  bestFirst() {
    localStorage.setItem(BEST_FIRST, actions.picksBestFirst() ? "0" : "1");
    showBestFirst();
    announce(actions.picksBestFirst() ? _("Best first: letters rank") : _("Letters pick"));
  },
  none() {
    const box = task.form.querySelector("[data-none]");
    if (!box) return;
    box.checked = !box.checked;
    task.render();
    task.changed();
    announce(box.checked ? _("None is good") : _("Some are good"));
  },
  skip() {
    if (task.form.dataset.skipUrl) ask(skipDialog);
  },
  report() {
    if (task.form.dataset.reportUrl) ask(reportDialog);
  },
  isReading: () => Boolean(reading()),
  haveRead,
  wholeGuideline() {
    const whole = reading().querySelector("[data-reading-whole]");
    whole.open = !whole.open;
    if (whole.open) whole.scrollIntoView({ block: "nearest" });
  },
  guideline() {
    const box = task.form.querySelector("[data-guideline]");
    if (!box) return;
    box.open = !box.open;
    if (box.open) box.querySelector(".guideline-text").focus({ preventScroll: true });
  },
  why() { task.form.querySelector("[data-rationale-field]")?.focus(); },
  reveal() {
    task.isRevealed = !task.isRevealed;
    blur(task.form, { isOn: !task.isRevealed });
    announce(task.isRevealed ? _("The texts are shown") : _("The texts are blurred"));
  },
  history() {
    task?.draft.flush({ keepalive: true });
    location.assign(place.dataset.historyUrl);
  },
  help() {
    printHelp(helpDialog.querySelector("[data-help-table]"), keysOf({ task, actions }));
    helpDialog.showModal();
  },
  escape() {
    if (!wordBox.hidden) wordBox.hidden = true;
    const typing = document.activeElement?.matches?.("input, textarea");
    const wasInRow = Boolean(task?.row);
    task?.leaveRow();
    if ((typing || wasInRow) && task?.picked) return task.cards.get(task.picked).focus({ preventScroll: true });
    if (!typing && task?.picked) task.pick(null);
    // Somewhere to go on from, never nowhere.
    task?.form.querySelector("[data-prompt]").focus({ preventScroll: true });
    return undefined;
  },
};

function showBestFirst() {
  task?.form.querySelector("[data-best-first]")?.setAttribute("aria-pressed", String(actions.picksBestFirst()));
}

// --- dialogs with a reason ------------------------------------------------------------------------
function ask(dialog) {
  dialog.querySelector("form").reset();
  dialog.showModal();
  dialog.querySelector("input:checked").focus();
}

for (const dialog of [skipDialog, reportDialog]) {
  dialog.addEventListener("keydown", (event) => {
    if (!dialog.open) return; // for a frame after it was closed the focus is still in it
    if (event.target.matches("input:not([type=radio]):not([type=checkbox])")) return;
    const choice = dialog.querySelector(`[data-choice="${CSS.escape(event.key)}"]`);
    if (choice) { event.preventDefault(); choice.checked = true; choice.focus(); }
    if (event.key === "Enter" && event.target.matches("[type=radio], [type=checkbox]")) { event.preventDefault(); dialog.querySelector("[type=submit]").click(); }
  });
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
}

skipDialog.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  skipDialog.close();
  skip(task, new URLSearchParams(new FormData(event.target)));
});

reportDialog.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  reportDialog.close();
  const reported = task;
  const body = new URLSearchParams(new FormData(event.target));
  try {
    const answer = await post(reported.form.dataset.reportUrl, body);
    if (!answer.ok) return say(answer.message ?? _("The report was not taken"));
    if (body.get("skip")) await skip(reported, new URLSearchParams({ reason: "rather_not" }));
    showWord(answer.message);
    return announce(answer.message);
  } catch (error) {
    if (!(error instanceof NetworkDown)) throw error;
    return say(_("The network is away, so this can't be reported yet. Try again in a moment."));
  }
});

async function skip(skipped, body) {
  try {
    const answer = await post(skipped.form.dataset.skipUrl, body);
    if (!answer.ok) return lost({ expired: false });
    ended.add(skipped.lease);
    if (answer.figures) showFigures(answer.figures);
    skipped.draft.drop();
    if (task === skipped) await next();
  } catch (error) {
    if (!(error instanceof NetworkDown)) throw error;
    say(_("The network is away, so this task can't be given back yet. Try again in a moment."));
  }
  return undefined;
}

// --- begin ----------------------------------------------------------------------------------------
// While a passage is being marked, the keys are the marks'.
document.addEventListener("keydown", (event) => {
  if (event.target.closest?.("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (!task?.marking?.onKey(event)) return;
  event.preventDefault();
  event.stopImmediatePropagation();
}, { capture: true });
bindKeys(() => keysOf({ task, actions }), { isAsleep: () => Boolean(awaiting) || Boolean(task?.marking) });
document.querySelector("[data-key-help]").addEventListener("click", () => actions.help());
wordBox.querySelector("[data-word-close]").addEventListener("click", () => { wordBox.hidden = true; });
place.addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  if (button) actions[button.dataset.do]();
  else if (event.target.closest(".is-blurred [data-card], .is-blurred [data-prompt]") && !event.target.closest("button, a, label, summary")) actions.reveal();
});

narrow.addEventListener("change", () => { if (task) { task.render(); task.clamp(); } });
window.addEventListener("pagehide", () => task?.draft.flush({ keepalive: true }));
document.addEventListener("visibilitychange", renew);
setInterval(() => { renew(); care.tick(); }, 5000);
clock.start();

const first = place.querySelector("[data-task]");
if (!first && reading()) beginReading();
else if (!first) waitForTasks();
else {
  open(taskOf(first));
  if (outbox.has(task.lease) && !first.dataset.revision) {
    // Submitted before the page was left, and not sent yet: send that, then go on.
    awaiting = task.lease;
    sent.set(task.lease, task);
    first.setAttribute("aria-busy", "true");
    say(_("This one was submitted before; sending it now …"));
  } else prefetch();
}
outbox.flush();
