// The bench: one task at a time, the next one fetched ahead, everything by key, by mouse and by finger.
//
//   <div data-bench data-next-url data-bench-url data-undo-url data-user>
//     <form data-task="12" data-layout="tiers|pair|rating" …>  (templates/annotation/_task.html)
//     <section data-nothing hidden>
//   </div>
//
// The form is the truth: this module moves cards, fills the form's fields, and sends the form as it is.

import { Clock, Draft, NetworkDown, Outbox, post } from "draft";
import { enableDrag } from "drag";
import * as Ranking from "ranking";
import { bindKeys, printHelp } from "shortcuts";

const place = document.querySelector("[data-bench]");
const nothing = place.querySelector("[data-nothing]");
const live = document.querySelector("[data-announce]");
const stateBox = document.querySelector(".bench-state");
const helpDialog = document.querySelector("[data-help-dialog]");
const skipDialog = document.querySelector("[data-skip-dialog]");
const narrow = matchMedia("(max-width: 899px)");
const CLAMP_PX = 460;

let task = null; // what is on the bench; see open()
let ahead = null; // the next task: its form, not yet shown
let fetching = null; // a prefetch on its way
let awaiting = null; // the lease whose answer must come before there is a next task
let undoUrl = place.dataset.undoUrl;
let renewedAt = performance.now();
let stopWaiting = null;
const sent = new Map(); // lease -> its form, until the server has taken it

const clock = new Clock();
const outbox = new Outbox({ user: place.dataset.user, onState: showState, onAnswer: answered });

// --- one task -------------------------------------------------------------------------------------
function open(form) {
  const cards = new Map([...form.querySelectorAll("[data-card]")].map((card) => [card.dataset.card, card]));
  const keys = [...cards.keys()];
  const draft = new Draft({
    url: form.dataset.draftUrl,
    lease: form.dataset.task,
    user: place.dataset.user,
    read: () => bodyOf(form),
    onState: draftState,
  });
  task = { form, cards, keys, draft, lease: Number(form.dataset.task), layout: form.dataset.layout, picked: null, lost: false };
  const unsaved = draft.unsaved();
  if (unsaved) fill(form, new URLSearchParams(unsaved));
  task.past = new Ranking.Past();
  task.ranking = Ranking.fromRanks(keys, ranksIn(form), { ties: form.dataset.ties === "1" });
  clock.restart(Number(form.elements.seconds.value) || 0);
  renewedAt = performance.now();

  form.addEventListener("submit", (event) => { event.preventDefault(); submit(); });
  form.addEventListener("input", (event) => { if (!event.target.matches("[type=hidden]")) changed(); });
  form.addEventListener("click", clicked);
  form.addEventListener("focusin", (event) => {
    const card = event.target.closest("[data-card]");
    if (card && card.dataset.card !== task.picked) pick(card.dataset.card, { focus: false });
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); submit(); }
  });
  if (task.layout === "tiers") {
    enableDrag(form.querySelector("[data-ranking]"), {
      isOn: () => !narrow.matches,
      ties: () => task.ranking.ties,
      onPick: (key) => pick(key),
      onDrop(key, { tier, place: where }) {
        const { ranking } = task;
        change(key, where === "before" ? Ranking.insert(ranking, key, tier) : where === "after" ? Ranking.insert(ranking, key, tier + 1) : Ranking.put(ranking, key, tier));
      },
    });
  }
  for (const correction of form.querySelectorAll(".correction")) {
    correction.addEventListener("toggle", () => {
      const field = correction.querySelector("textarea");
      if (correction.open && !field.value) field.value = field.dataset.original;
    });
  }
  form.classList.add("is-live");
  render();
  clamp();
  if (unsaved) draft.changed();
}

function ranksIn(form) {
  return Object.fromEntries([...form.querySelectorAll("[data-rank-field]")].map((field) => [field.name.slice(5), field.value]));
}

/** The form as it is sent. An untouched correction is none. */
function bodyOf(form) {
  clock.tick();
  if (form === task?.form) form.elements.seconds.value = clock.seconds.toFixed(1);
  const body = new URLSearchParams(new FormData(form));
  body.delete("csrfmiddlewaretoken");
  for (const field of form.querySelectorAll("textarea[data-original]")) {
    if (field.value === field.dataset.original) body.delete(field.name);
  }
  return body;
}

/** Puts what this browser remembered back in the form. */
function fill(form, body) {
  for (const field of form.elements) {
    if (!field.name || ["submission_key", "csrfmiddlewaretoken"].includes(field.name)) continue;
    if (field.type === "checkbox" || field.type === "radio") field.checked = body.getAll(field.name).includes(field.value);
    else if (field.name) field.value = body.get(field.name) ?? "";
  }
}

function render() {
  const { form, cards, ranking, layout } = task;
  const focused = document.activeElement;
  if (layout === "tiers") {
    const tiers = form.querySelectorAll("[data-tier-cards]");
    const tray = form.querySelector("[data-tray]");
    const inTiers = !narrow.matches;
    arrange(tray, (inTiers ? ranking.tray : ranking.keys).map((key) => cards.get(key)));
    tiers.forEach((tier, index) => {
      arrange(tier, inTiers ? ranking.tiers[index].map((key) => cards.get(key)) : []);
      tier.parentElement.classList.toggle("is-empty", ranking.tiers[index].length === 0);
      tier.parentElement.classList.toggle("is-tied", ranking.tiers[index].length > 1);
    });
    form.querySelector("[data-tray-title]").hidden = !inTiers || ranking.tray.length === 0;
    tray.classList.toggle("is-empty", inTiers && ranking.tray.length === 0);
    form.classList.toggle("is-begun", ranking.tray.length < ranking.keys.length);
  }
  for (const [key, card] of cards) {
    const rank = Ranking.rankOf(ranking, key);
    const field = card.querySelector("[data-rank-field]");
    if (field) field.value = rank || "";
    for (const button of card.querySelectorAll("[data-put]")) button.setAttribute("aria-pressed", String(Number(button.dataset.put) === rank));
    card.classList.toggle("is-picked", key === task.picked);
    card.classList.toggle("is-ranked", rank > 0);
  }
  if (layout === "pair") {
    const [a, b] = task.keys.map((key) => Ranking.rankOf(ranking, key));
    const strength = form.querySelector("[data-strength-field]")?.value ?? "";
    for (const button of form.querySelectorAll("[data-verdict]")) {
      const { a: rankA, b: rankB, strength: step } = button.dataset;
      const chosen = a > 0 && b > 0 && Math.sign(a - b) === Math.sign(rankA - rankB) && (!step || step === strength);
      button.setAttribute("aria-pressed", String(chosen));
    }
    for (const [key, card] of cards) card.classList.toggle("is-best", a !== b && Ranking.rankOf(ranking, key) === 1);
  }
  const order = form.querySelector("[data-order]");
  order.textContent = layout === "tiers" ? Ranking.inWords(ranking) : "";
  form.classList.toggle("is-complete", !missing());
  if (focused !== document.activeElement && form.contains(focused)) focused.focus({ preventScroll: true });
}

/** Moves only what isn't there already, so that scrolling and focus stay where they are. */
function arrange(parent, elements) {
  elements.forEach((element, index) => {
    if (parent.children[index] !== element) parent.insertBefore(element, parent.children[index] ?? null);
  });
}

/** Long completions fold, all alike; `o` or the button opens them. */
function clamp() {
  if (task.layout === "pair") return;
  for (const card of task.cards.values()) {
    const text = card.querySelector("[data-card-text]");
    const long = text.scrollHeight > CLAMP_PX * 1.2;
    text.classList.toggle("is-clamped", long);
    card.querySelector("[data-more]").hidden = !long;
  }
}

function unfold(card, open) {
  const text = card.querySelector("[data-card-text]");
  const more = card.querySelector("[data-more]");
  if (more.hidden) return;
  text.classList.toggle("is-clamped", !open);
  more.firstChild.textContent = open ? "fold it again " : "show all of it ";
}

function pick(key, { focus = true } = {}) {
  task.picked = key;
  render();
  if (!focus || !key) return;
  const card = task.cards.get(key);
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "nearest", behavior: "auto" });
}

function change(key, next) {
  if (next === task.ranking) return;
  task.past.keep(task.ranking);
  task.ranking = next;
  task.picked = key;
  render();
  const card = task.cards.get(key);
  if (!card.contains(document.activeElement)) card.focus({ preventScroll: true });
  if (!narrow.matches) card.scrollIntoView({ block: "nearest" });
  changed();
  const rank = Ranking.rankOf(next, key);
  const beside = rank ? next.tiers[rank - 1].filter((other) => other !== key) : [];
  announce(rank ? `${key}: rank ${rank}${beside.length ? `, tied with ${beside.join(" and ")}` : ""}` : `${key}: not ranked`);
}

function changed() {
  say("");
  task.form.classList.toggle("is-complete", !missing());
  task.draft.changed();
}

/** What still has to be answered, in words; empty: nothing. */
function missing() {
  const { form, ranking } = task;
  if (form.dataset.ranking === "1" && ranking.tray.length > 0) {
    return task.layout === "pair" ? "Say which is better first" : `Not ranked yet: ${ranking.tray.join(", ")}`;
  }
  if (form.dataset.rationale === "required" && !form.elements.rationale.value.trim()) return "This project asks why: write a line (w)";
  return "";
}

function clicked(event) {
  const target = event.target.closest("button, [data-card]");
  if (!target) return;
  const key = target.closest("[data-card]")?.dataset.card;
  if (target.dataset.put) {
    const rank = Number(target.dataset.put);
    change(key, Ranking.put(task.ranking, key, Ranking.rankOf(task.ranking, key) === rank ? 0 : rank));
  } else if (target.dataset.verdict) decide(target);
  else if (target.matches("[data-more]")) unfold(target.closest("[data-card]"), target.previousElementSibling.classList.contains("is-clamped"));
  else if (target.dataset.do) actions[target.dataset.do]();
}

function decide(button) {
  const [a, b] = task.keys;
  let next = Ranking.emptyRanking(task.keys, { ties: task.ranking.ties });
  next = Ranking.put(Ranking.put(next, a, Number(button.dataset.a)), b, Number(button.dataset.b));
  const field = task.form.querySelector("[data-strength-field]");
  if (field) field.value = button.dataset.strength;
  task.past.keep(task.ranking);
  task.ranking = next;
  render();
  changed();
  announce(button.textContent.trim());
  if (task.form.dataset.oneKey) submit();
}

// --- on to the next -------------------------------------------------------------------------------
function submit() {
  if (awaiting || !task.form.querySelector("[data-submit]")) return;
  const problem = missing();
  if (problem) {
    say(problem);
    const [first] = task.ranking.tray;
    if (task.layout === "tiers" && first) pick(first);
    else if (task.layout !== "pair") task.form.querySelector("[data-rationale-field]")?.focus();
    return;
  }
  const { form, lease, draft } = task;
  const holding = [ahead?.lease, ...outbox.leases].filter(Boolean);
  const body = bodyOf(form);
  body.append("holding", holding.join(","));
  const revision = Boolean(form.dataset.revision);
  const instant = !revision && ahead !== null;
  draft.drop();
  sent.set(lease, form);
  if (!instant) {
    awaiting = lease;
    form.setAttribute("aria-busy", "true");
    say("Saving …");
  }
  outbox.post({ lease, revision, url: instant || revision ? form.action : `${form.action}?next=1`, body: String(body) });
  if (instant) show(takeAhead());
}

function answered(item, answer) {
  const form = sent.get(item.lease);
  sent.delete(item.lease);
  const waited = awaiting === item.lease;
  if (waited) {
    awaiting = null;
    form?.removeAttribute("aria-busy");
  }
  if (answer.figures) showFigures(answer.figures);
  if (answer.undo_url !== undefined) undoUrl = answer.undo_url;
  if (answer.state === "invalid" && form) {
    // The rules on the server are stricter than ours: back with it, nothing is lost.
    if (task && task.form !== form) putBack(task.form);
    show(form);
    task.draft.changed();
    return say(`The server did not take this one: ${answer.message}`);
  }
  if (item.revision) {
    if (answer.ok) return location.assign(place.dataset.benchUrl);
    return say(answer.message ?? "This judgement can't be revised any more");
  }
  if (waited) {
    if (answer.next) show(formFrom(answer.next));
    else next();
  }
  if (answer.state === "surplus") say(answer.message);
  else if (!answer.ok) say(`Your last judgement was not taken: ${answer.message ?? "it is no longer yours to make"}`);
  if (!ahead) prefetch();
}

function takeAhead() {
  const { form } = ahead;
  ahead = null;
  return form;
}

/** A task that has to step aside for another becomes the next one. */
function putBack(form) {
  task.draft.flush();
  ahead ??= { lease: Number(form.dataset.task), form };
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
    const lease = Number(form?.dataset.task);
    if (form && !holdsAlready(lease)) ahead = { lease, form };
  } catch (error) {
    if (!(error instanceof NetworkDown)) throw error;
  } finally {
    fetching = null;
  }
}

const holdsAlready = (lease) => lease === task?.lease || lease === ahead?.lease || sent.has(lease) || outbox.has(lease);

/** The next task, from what was fetched ahead or else from the server. */
async function next() {
  if (fetching) await fetching.catch(() => {});
  if (ahead) return show(takeAhead());
  try {
    const answer = await post(place.dataset.nextUrl, new URLSearchParams({ holding: outbox.leases.join(",") }));
    show(answer.task ? formFrom(answer.task) : null);
  } catch (error) {
    showState(error.reason ?? "offline");
    say("The next task can't be fetched while the network is away. It comes by itself.");
    setTimeout(next, 3000);
  }
}

function show(form) {
  const old = place.querySelector("[data-task]");
  if (form && Number(form.dataset.task) === ahead?.lease) ahead = null;
  stopWaiting?.();
  stopWaiting = null;
  if (!form) {
    old?.remove();
    task = null;
    nothing.hidden = false;
    nothing.querySelector("h1").focus();
    announce("Nothing is left for you here");
    return waitForTasks();
  }
  nothing.hidden = true;
  if (old && old !== form) old.replaceWith(form);
  else if (!old) place.prepend(form);
  window.scrollTo(0, 0);
  if (form.classList.contains("is-live")) reopen(form);
  else open(form);
  form.querySelector("[data-prompt]").focus({ preventScroll: true });
  announce(`Next task, ${task.keys.length} completions`);
  prefetch();
}

/** A form that was on the bench before and whose listeners are still there. */
function reopen(form) {
  const fresh = form.cloneNode(true);
  fresh.classList.remove("is-live");
  fresh.removeAttribute("aria-busy");
  const values = new URLSearchParams(new FormData(form));
  form.replaceWith(fresh);
  fill(fresh, values);
  open(fresh);
}

/** An empty bench looks for work when the project changes, and now and then. */
function waitForTasks() {
  let stopped = false;
  const look = async () => {
    if (stopped || document.visibilityState !== "visible") return;
    const answer = await post(place.dataset.nextUrl, "holding=").catch(() => null);
    if (answer?.task && !stopped) show(formFrom(answer.task));
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
    ? "This task is closed: it was submitted or skipped, perhaps in another tab."
    : "The time on this task ran out and it went back to the queue. Submit all the same: it counts if nobody else took it, and is kept as an extra if somebody did.";
  say(words, { label: "Next task", run: () => { task.draft.drop(); next(); } });
}

function draftState(state, message) {
  if (state === "lease_lost" && task && !task.lost) return lost({ expired: false, message });
  showState(state);
}

// --- words ----------------------------------------------------------------------------------------
const STATES = {
  saved: "saved",
  saving: "saving",
  offline: "offline, kept here",
  "logged-out": "logged out: log in in another tab, this is kept here",
  server: "server busy, kept here",
};

function showState(state, waiting = outbox?.waiting.length ?? 0) {
  if (!STATES[state]) return;
  stateBox.classList.remove("is-quiet");
  stateBox.dataset.state = state;
  const more = waiting > 0 && state !== "saving" && state !== "saved" ? ` · ${waiting} to send` : "";
  const text = stateBox.querySelector("[data-state-text]");
  if (text.textContent !== STATES[state] + more) text.textContent = STATES[state] + more;
}

function showFigures(html) {
  const template = document.createElement("template");
  template.innerHTML = html; // our own server's template
  document.querySelector("[data-figures]").replaceChildren(template.content);
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
    if (!task.past.isEmpty) {
      task.ranking = task.past.back();
      render();
      changed();
      return announce("Undone");
    }
    if (task.form.dataset.revision) return say("Nothing more to undo");
    if (outbox.waiting.length) return say("Your last judgement is still on its way; it can be reopened once it is saved.");
    if (!undoUrl) return say("Nothing to undo yet");
    task.draft.flush({ keepalive: true });
    return location.assign(undoUrl);
  },
  tie() { if (task.picked) change(task.picked, Ranking.tie(task.ranking, task.picked)); },
  none() {
    const box = task.form.querySelector("[data-none]");
    if (!box) return;
    box.checked = !box.checked;
    changed();
    announce(box.checked ? "None is good" : "Some are good");
  },
  skip() {
    if (!task.form.dataset.skipUrl) return;
    skipDialog.querySelector("form").reset();
    skipDialog.showModal();
    skipDialog.querySelector("input:checked").focus();
  },
  guideline() {
    const box = task.form.querySelector("[data-guideline]");
    if (!box) return;
    box.open = !box.open;
    if (box.open) box.querySelector(".guideline-text").focus({ preventScroll: true });
  },
  unfold() {
    const open = Boolean(task.form.querySelector(".is-clamped"));
    for (const card of task.cards.values()) unfold(card, open);
  },
  why() { task.form.querySelector("[data-rationale-field]")?.focus(); },
  edit() {
    const box = task.picked && task.cards.get(task.picked).querySelector(".correction");
    if (!box) return;
    box.open = true;
    box.querySelector("textarea").focus();
  },
  help() {
    printHelp(helpDialog.querySelector("[data-help-table]"), table());
    helpDialog.showModal();
  },
  escape() {
    document.activeElement?.blur?.();
    if (task?.picked) pick(null);
  },
};

function move(step) {
  const order = task.layout === "tiers" && !narrow.matches ? Ranking.inSight(task.ranking) : task.keys;
  const at = order.indexOf(task.picked);
  pick(order[at < 0 ? (step > 0 ? 0 : order.length - 1) : Math.max(0, Math.min(order.length - 1, at + step))]);
}

function rate(digit) {
  const scales = [...(task.cards.get(task.picked)?.querySelectorAll("fieldset.choice:has([name^='ratings.'])") ?? [])];
  const scale = scales.find((one) => !one.querySelector(":checked")) ?? scales[0];
  const field = scale?.querySelector(`[value="${digit}"]`);
  if (!field) return;
  field.checked = true;
  changed();
}

/** The keys of the task on the bench: what they do, and how the help says it. */
function table() {
  const help = { keys: ["?"], shows: "?", says: "this list", run: () => actions.help() };
  if (!task) return [help];
  const { form, keys, layout } = task;
  const last = keys.at(-1);
  const guidelineKey = form.dataset.guidelineKey;
  const editKey = form.dataset.editKey;
  const entries = [{ keys, shows: `${keys[0]} – ${last}`, says: "pick a completion", run: (_, key) => pick(key) }];
  if (layout === "tiers") {
    const digits = keys.map((_, index) => String(index + 1));
    const needsPick = (run) => (event, key) => (task.picked ? run(key) : say("Pick a completion first: press its letter"));
    entries.push(
      { keys: digits, shows: `1 – ${keys.length}`, says: "put it in that rank", run: needsPick((key) => change(task.picked, Ranking.put(task.ranking, task.picked, Number(key)))) },
      { keys: keys.map((key) => `shift+${key}`), shows: `shift+${keys[0]} – shift+${last}`, says: "rank it next, below those ranked", run: (_, key) => change(key.at(-1), Ranking.append(task.ranking, key.at(-1))) },
      { keys: ["ArrowUp"], repeats: true, shows: "↑", says: "half a step up: out of a tie, or into the one above", run: (_, key) => (task.picked ? change(task.picked, Ranking.up(task.ranking, task.picked)) : false) },
      { keys: ["ArrowDown"], repeats: true, shows: "↓", says: "half a step down", run: () => (task.picked ? change(task.picked, Ranking.down(task.ranking, task.picked)) : false) },
    );
    if (form.dataset.ties === "1") entries.push({ keys: ["t"], shows: "t", says: "tie it with the one above", run: needsPick(() => actions.tie()) });
    entries.push({ keys: ["0", "Backspace"], shows: "0", says: "take it out of the ranking", run: needsPick(() => change(task.picked, Ranking.put(task.ranking, task.picked, 0))) });
  } else if (layout === "pair") {
    for (const button of form.querySelectorAll("[data-verdict]")) {
      entries.push({ keys: [button.dataset.verdict], shows: button.dataset.verdict, says: button.querySelector("span").textContent, run: () => decide(button) });
    }
  } else {
    entries.push({ keys: [..."0123456789"], shows: "0 – 9", says: "rate the picked one on its first open scale", run: (_, key) => rate(key) });
  }
  entries.push(
    { keys: ["ArrowLeft"], repeats: true, shows: "←", says: "pick the one before", run: () => move(-1) },
    { keys: ["ArrowRight"], repeats: true, shows: "→", says: "pick the one after", run: () => move(1) },
    { keys: ["Enter"], shows: "Enter", says: form.dataset.revision ? "replace the judgement" : "submit", run: () => submit() },
  );
  if (form.dataset.skipUrl) entries.push({ keys: ["s"], shows: "s", says: "skip this task", run: () => actions.skip() });
  entries.push({ keys: ["u"], shows: "u", says: "undo; with nothing to undo, reopen the last judgement", run: () => actions.undo() });
  if (form.querySelector("[data-none]")) entries.push({ keys: ["n"], shows: "n", says: "none is good", run: () => actions.none() });
  if (form.querySelector("[data-guideline]")) entries.push({ keys: [guidelineKey], shows: guidelineKey, says: "open or close the guideline", run: () => actions.guideline() });
  if (layout !== "pair") entries.push({ keys: ["o"], shows: "o", says: "open or fold long completions", run: () => actions.unfold() });
  if (form.querySelector("[data-rationale-field]")) entries.push({ keys: ["w"], shows: "w", says: "write why", run: () => actions.why() });
  if (form.querySelector(".correction")) entries.push({ keys: [editKey], shows: editKey, says: "edit the picked completion", run: () => actions.edit() });
  entries.push(
    { keys: [], shows: "Ctrl+Enter", says: "submit from within a text field" },
    help,
    { keys: ["Escape"], whileTyping: true, shows: "Esc", says: "leave a field, let go of a card, close", run: () => actions.escape() },
  );
  return entries;
}

// --- begin ----------------------------------------------------------------------------------------
bindKeys(table, { isAsleep: () => Boolean(awaiting) });
document.querySelector("[data-key-help]").addEventListener("click", () => actions.help());

skipDialog.addEventListener("keydown", (event) => {
  if (event.target.matches("input:not([type=radio])")) return;
  const choice = skipDialog.querySelector(`[data-skip-reason="${event.key}"]`);
  if (choice) { event.preventDefault(); choice.checked = true; choice.focus(); }
  if (event.key === "Enter" && event.target.matches("[type=radio]")) { event.preventDefault(); skipDialog.querySelector("[type=submit]").click(); }
});
skipDialog.querySelector("[data-close]").addEventListener("click", () => skipDialog.close());
skipDialog.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = new URLSearchParams(new FormData(event.target));
  skipDialog.close();
  const skipped = task;
  try {
    const answer = await post(skipped.form.dataset.skipUrl, body);
    if (!answer.ok) return lost({ expired: false });
    if (answer.figures) showFigures(answer.figures);
    skipped.draft.drop();
    if (task === skipped) await next();
  } catch (error) {
    if (!(error instanceof NetworkDown)) throw error;
    say("The network is away, so this task can't be given back yet. Try again in a moment.");
  }
});

narrow.addEventListener("change", () => { if (task) { render(); clamp(); } });
window.addEventListener("pagehide", () => task?.draft.flush({ keepalive: true }));
document.addEventListener("visibilitychange", renew);
setInterval(renew, 5000);
clock.start();

const first = place.querySelector("[data-task]");
if (!first) waitForTasks();
else if (outbox.has(Number(first.dataset.task)) && !first.dataset.revision) {
  // Submitted before the page was left, and not sent yet: send that, then go on.
  open(first);
  awaiting = task.lease;
  sent.set(task.lease, first);
  first.setAttribute("aria-busy", "true");
  say("This one was submitted before; sending it now …");
} else {
  open(first);
  prefetch();
}
outbox.flush();
