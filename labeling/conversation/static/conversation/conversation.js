// A conversation: say something, two completions come in side by side, the chosen one goes on. All by keyboard.
//
//   <div data-talk data-state-url data-speak-url data-live-path data-user data-conversation …>
//     <ol data-thread> <section data-stage> <section data-trouble> <form data-box>      (templates/conversation/conversation.html)
//   </div>
//
// What the server says of the conversation (`state`) is the truth: after whatever changes it, it is asked for again.
// The comparison itself is the bench's own form and its own Task.

import { blur, Care } from "care";
import { Clock, Draft, NetworkDown, Outbox, post } from "draft";
import { _, fill, ngettext } from "i18n";
import { keysOf, labelKeys } from "keys";
import { bindKeys, printHelp } from "shortcuts";
import { Streams } from "streams";
import { Task } from "task";

const place = document.querySelector("[data-talk]");
const thread = place.querySelector("[data-thread]");
const stage = place.querySelector("[data-stage]");
const judging = place.querySelector("[data-judging]");
const streamBox = place.querySelector("[data-streams]");
const trouble = place.querySelector("[data-trouble]");
const box = place.querySelector("[data-box]");
const field = box.querySelector("[data-content]");
const saidBox = box.querySelector("[data-said]");
const live = document.querySelector("[data-announce]");
const stateBox = document.querySelector(".bench-state");
const helpDialog = document.querySelector("[data-help-dialog]");
const skipDialog = document.querySelector("[data-skip-dialog]");
const endDialog = document.querySelector("[data-end-dialog]");
const wordBox = document.querySelector("[data-word]");
const narrow = matchMedia("(max-width: 899px)");
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const RETRY_MS = [1000, 2000, 5000, 10_000];
const MEMORY = `prefloop.talk.${place.dataset.user}.${place.dataset.conversation}`;

let state = JSON.parse(document.getElementById("talk-state").textContent);
let task = null; // the comparison in hand, once it can be judged
let awaiting = false; // a judgement is on its way
let sending = null; // the message on its way: {content, client_key}
let sendTimer = 0;
let tries = 0;
let undoUrl = place.dataset.undoUrl;
let renewedAt = performance.now();
let readingTurn = ""; // the turn whose clock runs

const clock = new Clock();
const outbox = new Outbox({ user: place.dataset.user, onState: showState, onAnswer: answered });
const care = new Care({
  breakMinutes: Number(place.dataset.breakMinutes) || 0,
  warnsWhenFast: Boolean(place.dataset.warnsWhenFast),
  clock,
  word: showWord,
});
const streams = new Streams({
  path: place.dataset.livePath,
  boxes: ["a", "b"].map((key) => streamBox.querySelector(`[data-stream="${key}"]`)),
  onText: beginReading,
  onOver: refresh,
  onPoll: refresh,
});

// --- what is seen -------------------------------------------------------------------------------
const kind = () => (!state.is_open ? "over" : state.turn?.state ?? "judged");

function show(next, { grows = false } = {}) {
  const before = kind();
  state = next;
  const now = kind();
  const { turn } = state;
  if (thread.innerHTML !== state.thread) {
    const n = thread.children.length;
    thread.innerHTML = state.thread; // our own server's template
    if (grows && !calm.matches) [...thread.children].slice(n).forEach((said) => said.classList.add("is-new"));
  }
  place.dataset.kind = now;
  stage.hidden = !["generating", "ready"].includes(now);
  streamBox.hidden = now !== "generating";
  if (now === "generating") {
    closeTask();
    stage.setAttribute("aria-busy", "true");
    streams.watch(turn.number, turn.texts);
  } else {
    stage.removeAttribute("aria-busy");
    streams.stop();
  }
  if (now === "ready") openTask();
  else closeTask();
  showTrouble();
  showBox(now);
  if (before === "generating" && now === "ready") {
    announce(_("Both completions are there. Which one is better?"));
    stage.focus({ preventScroll: true });
    stage.scrollIntoView({ block: "nearest", behavior: "auto" });
  } else if (before === "generating" && now === "failed") announce(turn.message);
}

function showBox(now) {
  const speaks = now === "judged" || now === "failed";
  const canSpeak = speaks && (state.turns_left > 0 || now === "failed");
  box.classList.toggle("is-waiting", !canSpeak);
  field.disabled = !canSpeak || sending !== null;
  box.querySelector("[data-send]").disabled = field.disabled;
  box.querySelector("[data-do=stop]").hidden = now !== "generating";
  box.querySelector("[data-do=end]").hidden = now === "over";
  box.hidden = now === "ready";
  const { turns_left: n } = state;
  box.querySelector("[data-left]").textContent = state.is_open ? fill(ngettext("%(n)s turn left", "%(n)s turns left", n), { n }) : "";
  if (now === "over") say(_("This conversation has ended."));
  else if (speaks && !canSpeak) say(_("This conversation has all its turns. End it, or begin another."));
  else if (now === "generating") say(_("Two completions are being written …"));
  else if (!sending) say("");
  if (now === "failed" && !field.value) field.value = state.turn.content;
  if (canSpeak && !sending && !document.querySelector("dialog[open]")) focusBox();
}

function showTrouble() {
  const { turn } = state;
  const failed = state.is_open && turn?.state === "failed";
  const noneGood = state.is_open && turn?.none_good && turn.state === "judged";
  trouble.hidden = !(failed || noneGood);
  if (trouble.hidden) return;
  trouble.querySelector("[data-trouble-text]").textContent = failed
    ? turn.message
    : _("You called both bad, and that is kept. Have both sampled again, or go on with the better one by saying something.");
  const again = document.createElement("button");
  again.type = "button";
  again.className = "button button-primary";
  again.dataset.do = "again";
  again.append(failed ? _("Try again") : _("Sample both again"), " ", keyLabel("r"));
  trouble.querySelector("[data-trouble-actions]").replaceChildren(again);
}

function keyLabel(key) {
  const label = document.createElement("kbd");
  label.textContent = key;
  return label;
}

function focusBox() {
  field.focus({ preventScroll: true });
  box.scrollIntoView({ block: "nearest", behavior: "auto" });
  window.scrollTo(0, document.documentElement.scrollHeight);
}

function beginReading() {
  const { turn } = state;
  const name = `${turn.number} ${turn.content}`;
  if (readingTurn === name) return;
  readingTurn = name;
  clock.restart(0);
}

// --- the comparison -----------------------------------------------------------------------------
function openTask() {
  const template = document.createElement("template");
  template.innerHTML = state.task ?? "";
  // A template is parsed as if there were no scripts, so what is meant for that case would be live in it.
  for (const element of template.content.querySelectorAll("noscript")) element.remove();
  const form = template.content.querySelector("[data-task]");
  if (!form || task?.lease === Number(form.dataset.task)) return;
  closeTask();
  judging.replaceChildren(form);
  task = new Task(form, { onChange: () => task?.draft?.changed(), onSubmit: submit, announce, say, isNarrow: () => narrow.matches });
  task.draft = new Draft({ url: form.dataset.draftUrl, lease: form.dataset.task, user: place.dataset.user, read: bodyOf, onState: draftState });
  const unsaved = task.draft.unsaved();
  if (unsaved) task.fill(new URLSearchParams(unsaved));
  if (!readingTurn) clock.restart(Number(form.elements.seconds.value) || 0);
  readingTurn = "";
  renewedAt = performance.now();
  if (form.dataset.blur) blur(form, { isOn: true });
  labelKeys(form, table());
  task.render();
  if (unsaved) task.draft.changed();
  if (outbox.has(task.lease)) {
    awaiting = true;
    form.setAttribute("aria-busy", "true");
    say(_("This one was submitted before; sending it now …"));
  }
}

function closeTask() {
  if (!task) return;
  task.draft.flush();
  task = null;
  judging.replaceChildren();
}

function bodyOf() {
  clock.tick();
  if (task) task.form.elements.seconds.value = clock.seconds.toFixed(1);
  return task.body();
}

function submit() {
  if (awaiting || !task) return;
  if (task.stopsAtMissing()) return;
  task.marking?.end();
  const { form, lease, draft } = task;
  const body = bodyOf();
  care.submitted({ seconds: clock.seconds, words: task.nWords });
  draft.drop();
  awaiting = true;
  form.setAttribute("aria-busy", "true");
  say(_("Saving …"));
  outbox.post({ lease, revision: false, url: form.action, body: String(body) });
}

async function answered(item, answer) {
  if (answer.figures) showFigures(answer.figures);
  if (answer.undo_url !== undefined) undoUrl = answer.undo_url;
  if (item.lease !== task?.lease) return undefined;
  awaiting = false;
  task.form.removeAttribute("aria-busy");
  if (answer.state === "invalid") {
    task.draft = new Draft({ url: task.form.dataset.draftUrl, lease: item.lease, user: place.dataset.user, read: bodyOf, onState: draftState });
    task.draft.changed();
    return say(fill(_("The server did not take this one: %(why)s"), { why: answer.message }));
  }
  announce(_("Saved. The chosen completion goes on."));
  await refresh({ grows: true });
  if (!answer.ok) say(fill(_("Your last judgement was not taken: %(why)s"), { why: answer.message ?? _("it is no longer yours to make") }));
  return undefined;
}

async function renew() {
  if (!task || document.visibilityState !== "visible") return;
  const seconds = Number(task.form.dataset.leaseSeconds);
  if ((performance.now() - renewedAt) / 1000 < seconds / 3 || clock.idle > seconds / 2) return;
  renewedAt = performance.now();
  // One that ran out is still this person's: nobody else is given it.
  await post(task.form.dataset.renewUrl).catch(() => {});
}

// --- saying something ---------------------------------------------------------------------------
const memory = {
  get() {
    try { return JSON.parse(localStorage.getItem(MEMORY)) ?? {}; } catch { return {}; }
  },
  set(value) {
    try {
      if (value === null) localStorage.removeItem(MEMORY);
      else localStorage.setItem(MEMORY, JSON.stringify(value));
    } catch { /* full or forbidden: the field itself remains */ }
  },
};

function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function speak() {
  const content = field.value.replace(/^\n+|\n+$/g, "");
  if (field.disabled) return;
  if (!content.trim()) return say(_("Say something first"));
  sending = { content, client_key: newKey() };
  memory.set({ content, sending });
  return deliver();
}

/** Until the server has it: once, by its key, however often it is sent. */
async function deliver() {
  clearTimeout(sendTimer);
  if (!sending) return;
  showState("saving");
  showBox(kind());
  say(_("Sending …"));
  let answer;
  try {
    answer = await post(place.dataset.speakUrl, new URLSearchParams(sending));
  } catch (error) {
    if (!(error instanceof NetworkDown)) throw error;
    showState(error.reason);
    say(_("Your message is kept here and goes out as soon as the network is back."));
    sendTimer = setTimeout(deliver, RETRY_MS[Math.min(tries++, RETRY_MS.length - 1)]);
    return;
  }
  tries = 0;
  const { content } = sending;
  sending = null;
  showState("saved");
  if (answer.ok) {
    memory.set(null);
    field.value = "";
    fit();
    const note = place.querySelector("[data-note]");
    if (note) note.open = false; // read by now; a key opens it
    show(answer, { grows: true });
    window.scrollTo(0, document.documentElement.scrollHeight);
    return;
  }
  memory.set({ content });
  if (answer.thread !== undefined) show(answer);
  field.value = content;
  say(answer.message ?? _("The server did not take this message."));
}

function remember() {
  fit();
  if (sending) return;
  memory.set(field.value ? { content: field.value } : null);
  showState(field.value ? "kept" : "saved");
}

/** As high as what is in it, to a third of the window. */
function fit() {
  field.rows = Math.max(2, Math.min(Math.floor(innerHeight / 3 / 24), field.value.split("\n").length, 14));
}

// --- the server ---------------------------------------------------------------------------------
async function refresh({ grows = false } = {}) {
  try {
    const response = await fetch(place.dataset.stateUrl, { headers: { Accept: "application/json" }, redirect: "manual" });
    if (response.type === "opaqueredirect") return showState("logged-out");
    if (response.status === 404) return location.assign(place.dataset.listUrl);
    if (!response.ok) return showState("server");
    show(await response.json(), { grows });
    if (!sending) showState(field.value && !field.disabled ? "kept" : "saved");
  } catch {
    showState("offline");
    setTimeout(() => refresh({ grows }), 3000);
  }
  return undefined;
}

async function change(what) {
  const { turn } = state;
  if (!turn) return;
  try {
    const answer = await post(`${place.dataset.speakUrl}${turn.number}/${what}/`);
    if (answer.thread !== undefined) show(answer);
    if (answer.message && !answer.ok) say(answer.message);
    if (what === "stop") streams.nudge();
  } catch (error) {
    if (!(error instanceof NetworkDown)) throw error;
    showState(error.reason);
    say(_("The network is away. Try again in a moment."));
  }
}

// --- words --------------------------------------------------------------------------------------
const STATES = {
  saved: _("saved"),
  saving: _("saving"),
  kept: _("draft kept here"),
  offline: _("offline, kept here"),
  "logged-out": _("logged out: log in in another tab, this is kept here"),
  server: _("server busy, kept here"),
};

function showState(next) {
  if (!STATES[next]) return;
  stateBox.classList.remove("is-quiet");
  stateBox.dataset.state = next === "kept" ? "saved" : next;
  stateBox.querySelector("[data-state-text]").textContent = STATES[next];
}

function draftState(next) {
  if (next !== "lease_lost") return showState(next);
  return refresh();
}

function showFigures(html) {
  const template = document.createElement("template");
  template.innerHTML = html; // our own server's template
  document.querySelector("[data-figures]").replaceChildren(template.content);
}

function say(words) {
  const target = task?.form.querySelector("[data-said]") ?? saidBox;
  if (target.textContent !== words) target.textContent = words;
}

function announce(words) { live.textContent = words; }

function showWord(words) {
  wordBox.hidden = false;
  wordBox.querySelector("[data-word-text]").textContent = words;
}

// --- keys ---------------------------------------------------------------------------------------
const actions = {
  submit,
  picksBestFirst: () => false,
  undo() {
    if (task?.undo()) return announce(_("Undone"));
    if (outbox.waiting.length) return say(_("Your last judgement is still on its way; it can be reopened once it is saved."));
    if (!undoUrl) return say(_("Nothing to undo yet"));
    task?.draft.flush({ keepalive: true });
    return location.assign(undoUrl);
  },
  none() {
    const none = task.form.querySelector("[data-none]");
    none.checked = !none.checked;
    task.render();
    task.changed();
    announce(none.checked ? _("Both are bad") : _("Not both are bad"));
  },
  skip() {
    skipDialog.querySelector("form").reset();
    skipDialog.showModal();
    skipDialog.querySelector("input:checked").focus();
  },
  guideline() {
    const guideline = task.form.querySelector("[data-guideline]");
    guideline.open = !guideline.open;
    if (guideline.open) guideline.querySelector(".guideline-text").focus({ preventScroll: true });
  },
  why() { task.form.querySelector("[data-rationale-field]")?.focus(); },
  reveal() {
    task.isRevealed = !task.isRevealed;
    blur(task.form, { isOn: !task.isRevealed });
  },
  history() { location.assign(place.dataset.historyUrl); },
  help() {
    printHelp(helpDialog.querySelector("[data-help-table]"), table());
    helpDialog.showModal();
  },
  escape() {
    if (!wordBox.hidden) wordBox.hidden = true;
    const typing = document.activeElement?.matches?.("input, textarea");
    task?.leaveRow();
    if (typing && task?.picked) return task.cards.get(task.picked).focus({ preventScroll: true });
    document.activeElement?.blur?.();
    if (!typing && task?.picked) task.pick(null);
    return undefined;
  },
  again() { change("again"); },
  stop() { change("stop"); },
  end() { if (state.is_open) endDialog.showModal(); },
  begin() { document.querySelector("[data-begin-form]").submit(); },
  note() {
    const note = place.querySelector("[data-note]");
    note.open = !note.open;
  },
};

function table() {
  const now = kind();
  const talk = [];
  const canSpeak = !field.disabled && !box.hidden;
  if (canSpeak) {
    talk.push(
      { name: "write", keys: ["Enter", "i"], shows: "Enter", says: _("write; while writing: send"), run: () => focusBox() },
      { name: "line", keys: [], shows: "shift+Enter", says: _("while writing: a new line") },
    );
  }
  if (now === "failed" || state.turn?.none_good) talk.push({ name: "again", keys: ["r"], shows: "r", says: _("sample both again"), run: () => actions.again() });
  if (now === "generating") talk.push({ name: "stop", keys: ["s"], shows: "s", says: _("stop both where they are"), run: () => actions.stop() });
  if (!task && undoUrl) talk.push({ name: "undo", keys: ["u"], shows: "u", says: _("reopen the last judgement"), run: () => actions.undo() });
  const always = [];
  if (place.querySelector("[data-note]")) always.push({ name: "note", keys: task ? [] : ["a"], shows: "a", says: _("what to talk about"), run: () => actions.note() });
  always.push(
    { name: "end", keys: ["shift+e"], shows: "shift+e", says: _("end this conversation"), run: () => actions.end() },
    { name: "begin", keys: ["shift+n"], shows: "shift+n", says: _("begin another conversation"), run: () => actions.begin() },
  );
  if (task) {
    const report = (entry) => entry.name !== "report"; // the lead sees conversations; a prompt here is the person's own
    return [...keysOf({ task, actions }).filter(report), ...always.filter((entry) => entry.name !== "note")];
  }
  return [
    ...talk,
    ...always,
    { name: "history", keys: ["j"], shows: "j", says: _("your past judgements"), run: () => actions.history() },
    { name: "help", keys: ["?"], shows: "?", says: _("this list"), run: () => actions.help() },
    { name: "escape", keys: ["Escape"], whileTyping: true, shows: "Esc", says: _("leave the field, close"), run: () => actions.escape() },
  ];
}

// --- begin ----------------------------------------------------------------------------------------
// While a passage is being marked, the keys are the marks'.
document.addEventListener("keydown", (event) => {
  if (event.target.closest?.("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (!task?.marking?.onKey(event)) return;
  event.preventDefault();
  event.stopImmediatePropagation();
}, { capture: true });
bindKeys(table, { isAsleep: () => awaiting || Boolean(task?.marking) });
document.querySelector("[data-key-help]").addEventListener("click", () => actions.help());
wordBox.querySelector("[data-word-close]").addEventListener("click", () => { wordBox.hidden = true; });
place.addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  if (button) actions[button.dataset.do]?.();
  else if (event.target.closest(".is-blurred [data-blurred]")) actions.reveal();
});
field.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.altKey) return;
  event.preventDefault();
  speak();
});
field.addEventListener("input", remember);
box.addEventListener("submit", (event) => { event.preventDefault(); speak(); });
for (const dialog of [skipDialog, endDialog]) dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
skipDialog.addEventListener("keydown", (event) => {
  if (event.target.matches("input:not([type=radio])")) return;
  const choice = skipDialog.querySelector(`[data-choice="${CSS.escape(event.key)}"]`);
  if (choice) { event.preventDefault(); choice.checked = true; choice.focus(); }
  if (event.key === "Enter" && event.target.matches("[type=radio]")) { event.preventDefault(); skipDialog.querySelector("[type=submit]").click(); }
});
skipDialog.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  skipDialog.close();
  const { form, draft } = task;
  try {
    const answer = await post(form.dataset.skipUrl, new URLSearchParams(new FormData(event.target)));
    if (answer.figures) showFigures(answer.figures);
    draft.drop();
    await refresh();
  } catch (error) {
    if (!(error instanceof NetworkDown)) throw error;
    say(_("The network is away. Try again in a moment."));
  }
});

narrow.addEventListener("change", () => task?.render());
window.addEventListener("online", () => { if (sending) deliver(); else refresh(); });
window.addEventListener("pagehide", () => task?.draft.flush({ keepalive: true }));
document.addEventListener("visibilitychange", renew);
setInterval(() => { renew(); care.tick(); }, 5000);
clock.start();

const kept = memory.get();
if (kept.content && !(state.turn && kept.sending && state.turn.content === kept.content && state.turn.state !== "judged")) field.value = kept.content;
fit();
show(state);
if (state.is_open) streams.expect();
if (kept.sending) {
  // Sent before the page was left, and perhaps not taken: its key makes sending it again harmless.
  sending = kept.sending;
  deliver();
}
outbox.flush();
if (task) stage.scrollIntoView({ block: "start", behavior: "auto" });
else window.scrollTo(0, document.documentElement.scrollHeight);
