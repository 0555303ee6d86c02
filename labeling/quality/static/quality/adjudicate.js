// One task before a reviewer: the bench's cards and keys, with outcomes in place of a submit that brings the next.
//
//   <div data-adjudicate data-list-url data-next-url>
//     <h2 data-votes>                       there once the votes are shown
//     <form data-task="0" …>                templates/annotation/_task.html; see task.js
//   <dialog data-unfit-dialog>              asks before a task is closed
//
// The form is sent as a page's form: the answer is the next page, or this one again with everything still in it.

import { blur } from "care";
import { keysOf, labelKeys } from "keys";
import { bindKeys, printHelp } from "shortcuts";
import * as Ranking from "ranking";
import { Task } from "task";

const BEST_FIRST = "prefloop.best-first";
const place = document.querySelector("[data-adjudicate]");
const form = place.querySelector("[data-task]");
const live = document.querySelector("[data-announce]");
const helpDialog = document.querySelector("[data-help-dialog]");
const unfitDialog = document.querySelector("[data-unfit-dialog]");
const narrow = matchMedia("(max-width: 899px)");
const votes = place.querySelector("[data-votes]");
let outcome = "";
let isSent = false;

const announce = (words) => { live.textContent = words; };
const say = (words) => { form.querySelector("[data-said]").textContent = words; };

// As in the bench: what is meant for pages without scripts would send a second rank.
for (const element of form.querySelectorAll("noscript")) element.remove();
// Before the task's own listener, which knows no submitter.
form.addEventListener("submit", (event) => { outcome = event.submitter?.dataset.outcome ?? ""; }, { capture: true });
const task = new Task(form, { onSubmit: submit, announce, say, isNarrow: () => narrow.matches });

function submit() {
  const chosen = outcome;
  outcome = "";
  if (isSent) return;
  if (chosen === "unfit" && !unfitDialog.open) return unfitDialog.showModal();
  if (!chosen && task.stopsAtMissing()) return;
  send(chosen);
}

function send(chosen) {
  isSent = true;
  form.setAttribute("aria-busy", "true");
  if (chosen) {
    const field = document.createElement("input");
    Object.assign(field, { type: "hidden", name: "outcome", value: chosen });
    form.append(field);
  }
  HTMLFormElement.prototype.submit.call(form);
}

unfitDialog.addEventListener("close", () => { if (unfitDialog.returnValue === "unfit" && !isSent) send("unfit"); });
unfitDialog.addEventListener("cancel", () => { unfitDialog.returnValue = ""; });

const choose = (name) => form.querySelector(`[data-outcome="${name}"]`)?.click();

const actions = {
  submit,
  undo: () => announce(task.undo() ? "Undone" : "Nothing to undo"),
  tie() { if (task.picked) task.change(task.picked, Ranking.tie(task.ranking, task.picked)); },
  picksBestFirst: () => localStorage.getItem(BEST_FIRST) === "1",
  bestFirst() {
    localStorage.setItem(BEST_FIRST, actions.picksBestFirst() ? "0" : "1");
    form.querySelector("[data-best-first]")?.setAttribute("aria-pressed", String(actions.picksBestFirst()));
    announce(actions.picksBestFirst() ? "Best first: letters rank" : "Letters pick");
  },
  none() {
    const box = form.querySelector("[data-none]");
    if (!box) return;
    box.checked = !box.checked;
    task.render();
    task.changed();
    announce(box.checked ? "None is good" : "Some are good");
  },
  guideline() {
    const box = form.querySelector("[data-guideline]");
    box.open = !box.open;
    if (box.open) box.querySelector(".guideline-text").focus({ preventScroll: true });
  },
  why: () => form.querySelector("[data-rationale-field]")?.focus(),
  reveal() {
    task.isRevealed = !task.isRevealed;
    blur(form, { isOn: !task.isRevealed });
    announce(task.isRevealed ? "The texts are shown" : "The texts are blurred");
  },
  help() {
    printHelp(helpDialog.querySelector("[data-help-table]"), table());
    helpDialog.showModal();
  },
  escape() {
    const typing = document.activeElement?.matches?.("input, textarea");
    if (typing && task.picked) return task.cards.get(task.picked).focus({ preventScroll: true });
    if (!typing && task.picked) task.pick(null);
    form.querySelector("[data-prompt]").focus({ preventScroll: true });
    return undefined;
  },
};

function table() {
  const shared = keysOf({ task, actions }).filter(({ name }) => !["history", "submit", "undo"].includes(name));
  const has = (selector) => Boolean(form.querySelector(selector));
  const own = [
    { name: "submit", keys: ["Enter"], shows: "Enter", says: form.querySelector("[data-submit]").textContent.replace("⏎", "").trim().toLowerCase(), run: submit },
    { name: "undo", keys: ["u"], shows: "u", says: "undo", run: () => actions.undo() },
    { name: "unfit", keys: ["x"], shows: "x", says: "the task is unfit: close it", run: () => choose("unfit") },
    { name: "later", keys: ["s"], shows: "s", says: "leave it for later and look at the next one", run: () => location.assign(place.dataset.nextUrl) },
    { name: "list", keys: ["j"], shows: "j", says: "back to the list", run: () => location.assign(place.dataset.listUrl) },
  ];
  if (has("[data-outcome=left]")) own.push({ name: "leave", keys: ["k"], shows: "k", says: "leave it as it is", run: () => choose("left") });
  if (has("[data-gold]")) own.push({ name: "gold", keys: ["m"], shows: "m", says: "may become a gold task", run: () => form.querySelector("[data-gold]").click() });
  if (has("[data-note-field]")) own.push({ name: "note", keys: ["v"], shows: "v", says: "write a note to the guideline", run: () => form.querySelector("[data-note-field]").focus() });
  return [...own, ...shared];
}

place.addEventListener("click", (event) => {
  const name = event.target.closest("[data-do]")?.dataset.do;
  if (name) actions[name]?.();
  else if (event.target.closest(".is-blurred [data-card], .is-blurred [data-prompt]") && !event.target.closest("button, a, label, summary")) actions.reveal();
});
document.querySelector("[data-key-help]").addEventListener("click", () => actions.help());
bindKeys(table, { isAsleep: () => isSent });
narrow.addEventListener("change", () => { task.render(); task.clamp(); });
window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

if (form.dataset.blur) blur(form, { isOn: true });
labelKeys(form, table());
form.querySelector("[data-best-first]")?.setAttribute("aria-pressed", String(actions.picksBestFirst()));
task.render();
task.clamp();
task.begin();
// The votes are what is new; without them the reading begins at the prompt.
(votes ?? form.querySelector("[data-prompt]")).focus({ preventScroll: true });
