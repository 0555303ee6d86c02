// One task on the bench: its form, its cards, its ranking, and what else is said of each completion.
//
//   const task = new Task(form, { onChange, onSubmit, announce, say, isNarrow });      form: templates/annotation/_task.html
//   task.pick("a"); task.rank("b", 2); task.body(); task.missing();
//
// The form is the truth: this module moves cards and fills the form's fields, and the form is sent as it is.

import { Correction, Demonstration } from "correction";
import { enableDrag } from "drag";
import { _, fill } from "i18n";
import { Marks } from "marks";
import { choose, nextOpenRow, rowName, rowsOf } from "parts";
import * as Ranking from "ranking";

const CLAMP_PX = 460;
const SURELY_LONG = 4000; // characters
const NOT_CONTENT = new Set(["submission_key", "csrfmiddlewaretoken", "seconds", "holding"]);

export class Task {
  #marks = new Map();
  #corrections = new Map();
  #demonstration = null;

  constructor(form, { onChange = () => {}, onSubmit = () => {}, announce = () => {}, say = () => {}, isNarrow = () => false }) {
    Object.assign(this, { form, onChange, onSubmit, announce, say, isNarrow });
    this.cards = new Map([...form.querySelectorAll("[data-card]")].map((card) => [card.dataset.card, card]));
    this.keys = [...this.cards.keys()];
    this.lease = Number(form.dataset.task);
    this.layout = form.dataset.layout;
    this.picked = null;
    this.row = null; // the row of a card's parts that digits speak to
    this.lost = false;
    this.tieNext = false;
    this.past = new Ranking.Past();
    this.#readRanking();
    this.#openParts();
    this.#listen();
    form.classList.add("is-live");
  }

  get ties() { return this.form.dataset.ties === "1"; }

  get ranks() { return this.form.dataset.ranking === "1"; }

  get hasRows() { return rowsOf(this.form).length > 0; }

  /** The card's marks that are being made right now, or null. */
  get marking() { return [...this.#marks.values()].find((marks) => marks.isOn) ?? null; }

  // --- the form -----------------------------------------------------------------------------------
  /** The form as it is sent. An untouched correction is none. */
  body() {
    const body = new URLSearchParams(new FormData(this.form));
    body.delete("csrfmiddlewaretoken");
    for (const correction of this.#corrections.values()) {
      const field = correction.box.querySelector("[data-correction-field]");
      if (correction.isUntouched(field)) body.delete(field.name);
    }
    return body;
  }

  /** Puts what was remembered of this task back in its form. */
  fill(body) {
    for (const field of this.form.elements) {
      if (!field.name || ["submission_key", "csrfmiddlewaretoken"].includes(field.name)) continue;
      if (field.type === "checkbox" || field.type === "radio") field.checked = body.getAll(field.name).includes(field.value);
      else field.value = body.get(field.name) ?? "";
    }
    for (const part of [...this.#marks.values(), ...this.#corrections.values()]) part.refresh();
    this.#demonstration?.refresh();
    this.#readRanking();
  }

  /** What still has to be answered: {words, element}, or null. */
  missing() {
    const { form, ranking } = this;
    if (this.ranks && ranking.tray.length > 0) {
      return this.layout === "pair"
        ? { words: _("Say which is better first") }
        : { words: fill(_("Not ranked yet: %(keys)s"), { keys: ranking.tray.join(", ") }), card: ranking.tray[0] };
    }
    const required = form.dataset.required.split(" ");
    const parts = { ratings: "rating", acceptable: "acceptable" };
    for (const [name, part] of Object.entries(parts)) {
      const open = required.includes(name) && rowsOf(form).find((row) => row.dataset.part === part && !row.querySelector(":checked"));
      if (open) return { words: fill(_("Still open: %(what)s of %(key)s"), { what: rowName(open), key: keyOf(open) }), row: open };
    }
    const strength = form.querySelector("[data-strength]");
    if (strength && required.includes("strength") && !strength.querySelector(":checked") && Ranking.groups(ranking).length > 1) {
      return { words: _("Say how much better the best one is"), element: strength.querySelector("input") };
    }
    const demonstration = form.querySelector("[data-demonstration-field]");
    if (form.dataset.demonstration === "required" && !demonstration.value.trim()) {
      return { words: _("Write the completion that you would want"), element: demonstration };
    }
    if (form.dataset.rationale === "required" && !form.elements.rationale.value.trim()) {
      return { words: _("This project asks why: write a line"), element: form.querySelector("[data-rationale-field]") };
    }
    if (!this.ranks && !form.dataset.mayBeEmpty && ![...this.body()].some(([name, value]) => value && value !== "[]" && !NOT_CONTENT.has(name))) {
      return { words: _("Nothing is said yet"), row: nextOpenRow(form), element: demonstration ?? this.cards.get(this.keys[0]) };
    }
    return null;
  }

  /** Says what still has to be answered and goes there; false: nothing. */
  stopsAtMissing() {
    const open = this.missing();
    if (!open) return false;
    this.say(open.words);
    this.announce(open.words);
    if (open.row) this.enterRow(open.row);
    else if (open.card) this.pick(open.card);
    else open.element?.focus();
    return true;
  }

  get isComplete() { return this.missing() === null; }

  /** Words that a reader has before them, for what is too fast to be true. */
  get nWords() {
    let n = 0;
    for (const text of this.form.querySelectorAll(".turn .prose, [data-card-text]")) n += text.textContent.trim().split(/\s+/).length;
    return n;
  }

  // --- what is seen -------------------------------------------------------------------------------
  render() {
    const { form, cards, ranking, layout } = this;
    const focused = document.activeElement;
    if (layout === "tiers") {
      const inTiers = !this.isNarrow();
      const tray = form.querySelector("[data-tray]");
      arrange(tray, (inTiers ? ranking.tray : ranking.keys).map((key) => cards.get(key)));
      form.querySelectorAll("[data-tier-cards]").forEach((tier, index) => {
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
      card.classList.toggle("is-picked", key === this.picked);
      card.classList.toggle("is-ranked", rank > 0);
    }
    if (layout === "pair") this.#renderVerdict();
    form.querySelector("[data-order]").textContent = layout === "tiers" ? Ranking.inWords(ranking) : "";
    form.classList.toggle("is-complete", this.isComplete);
    if (focused !== document.activeElement && form.contains(focused)) focused.focus({ preventScroll: true });
  }

  #renderVerdict() {
    const [a, b] = this.keys.map((key) => Ranking.rankOf(this.ranking, key));
    const strength = this.form.querySelector("[data-strength-field]")?.value ?? "";
    const none = Boolean(this.form.querySelector("[data-none]")?.checked);
    for (const button of this.form.querySelectorAll("[data-verdict]")) {
      const { a: rankA, b: rankB, strength: step, noneGood } = button.dataset;
      const same = a > 0 && b > 0 && Math.sign(a - b) === Math.sign(rankA - rankB) && (!step || step === strength);
      const chosen = same && (rankA !== rankB || Boolean(noneGood) === none);
      button.setAttribute("aria-pressed", String(chosen));
    }
    for (const [key, card] of this.cards) card.classList.toggle("is-best", a !== b && Ranking.rankOf(this.ranking, key) === 1);
  }

  /** Long completions fold, all alike; a key or the button opens them. */
  clamp() {
    if (this.layout === "pair") return;
    for (const card of this.cards.values()) {
      const text = card.querySelector("[data-card-text]");
      // Measuring lays the whole text out, so what is surely long isn't measured.
      const long = text.textContent.length > SURELY_LONG || text.scrollHeight > CLAMP_PX * 1.2;
      text.classList.toggle("is-clamped", long);
      card.querySelector("[data-more]").hidden = !long;
    }
  }

  unfold(card, open) {
    const more = card.querySelector("[data-more]");
    if (more.hidden) return;
    card.querySelector("[data-card-text]").classList.toggle("is-clamped", !open);
    more.querySelector("[data-more-words]").textContent = open ? _("fold it again") : _("show all of it");
  }

  unfoldAll() {
    const turns = this.form.querySelector("[data-folded-turns]");
    const open = Boolean(this.form.querySelector(".is-clamped")) || Boolean(turns && !turns.open);
    if (turns) turns.open = open;
    for (const card of this.cards.values()) this.unfold(card, open);
  }

  // --- picking and ranking ------------------------------------------------------------------------
  pick(key, { focus = true } = {}) {
    this.picked = key;
    this.leaveRow();
    this.render();
    if (!focus || !key) return;
    const card = this.cards.get(key);
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "nearest", behavior: "auto" });
    if (!this.ranks && this.hasRows) this.enterRow(nextOpenRow(card) ?? rowsOf(card)[0]);
  }

  move(step) {
    const order = this.layout === "tiers" && !this.isNarrow() ? Ranking.inSight(this.ranking) : this.keys;
    const at = order.indexOf(this.picked);
    this.pick(order[at < 0 ? (step > 0 ? 0 : order.length - 1) : Math.max(0, Math.min(order.length - 1, at + step))]);
  }

  rank(key, rank) { this.change(key, Ranking.put(this.ranking, key, rank)); }

  /** As the next best; once one is left it can only be the last. */
  rankNext(key) {
    let next = Ranking.rankOf(this.ranking, key) ? Ranking.put(this.ranking, key, 0) : this.ranking;
    const last = next.tiers.findLastIndex((tier) => tier.length > 0);
    next = this.tieNext && last >= 0 ? Ranking.put(next, key, last + 1) : Ranking.append(next, key);
    this.tieNext = false;
    if (next.tray.length === 1) next = Ranking.append(next, next.tray[0]);
    this.change(key, next);
  }

  change(key, next) {
    if (next === this.ranking) return;
    this.past.keep(this.ranking);
    this.ranking = next;
    this.picked = key;
    this.render();
    const card = this.cards.get(key);
    if (!card.contains(document.activeElement)) card.focus({ preventScroll: true });
    if (!this.isNarrow()) card.scrollIntoView({ block: "nearest" });
    this.changed();
    const rank = Ranking.rankOf(next, key);
    const beside = rank ? next.tiers[rank - 1].filter((other) => other !== key) : [];
    const words = !rank ? _("%(key)s: not ranked") : beside.length ? _("%(key)s: rank %(rank)s, tied with %(others)s") : _("%(key)s: rank %(rank)s");
    this.announce(fill(words, { key, rank, others: beside.join(", ") }));
  }

  decide(button) {
    const [a, b] = this.keys;
    let next = Ranking.emptyRanking(this.keys, { ties: this.ranking.ties });
    next = Ranking.put(Ranking.put(next, a, Number(button.dataset.a)), b, Number(button.dataset.b));
    const field = this.form.querySelector("[data-strength-field]");
    if (field) field.value = button.dataset.strength;
    const none = this.form.querySelector("[data-none]");
    // "Equal" takes "both bad" back; a better one among two bad ones leaves it.
    if (none && button.dataset.a === button.dataset.b) none.checked = Boolean(button.dataset.noneGood);
    this.past.keep(this.ranking);
    this.ranking = next;
    this.leaveRow();
    this.render();
    this.changed();
    this.announce(button.querySelector("span").textContent);
    if (this.form.dataset.oneKey) this.onSubmit();
  }

  undo() {
    if (this.past.isEmpty) return false;
    this.ranking = this.past.back();
    this.render();
    this.changed();
    return true;
  }

  // --- what else is asked of a completion ---------------------------------------------------------
  /** Without `focus` the eye stays where it is: on the prompt of a task that has just come. */
  enterRow(row, { focus = true } = {}) {
    if (!row) return;
    this.leaveRow();
    this.picked = keyOf(row) || this.picked;
    this.render();
    this.row = row;
    row.classList.add("is-current");
    row.tabIndex = -1;
    if (!focus) return;
    if (!row.contains(document.activeElement)) row.focus({ preventScroll: true });
    row.scrollIntoView({ block: "nearest" });
  }

  /** Where nothing is ranked, digits may begin at once. */
  begin() {
    if (!this.ranks && this.hasRows) this.enterRow(nextOpenRow(this.form), { focus: false });
  }

  leaveRow() {
    this.row?.classList.remove("is-current");
    this.row = null;
  }

  /** The next row of the picked card (of the first one, if none is picked). */
  nextRow(step = 1) {
    const card = this.cards.get(this.picked ?? this.keys[0]);
    if (!card) return;
    const rows = rowsOf(card);
    const at = rows.indexOf(this.row);
    if (this.row && at >= 0) this.enterRow(rows[(at + step + rows.length) % rows.length]);
    else this.enterRow(nextOpenRow(card) ?? rows[0]);
  }

  /** A digit for the row that has the focus; goes on to the next open one by itself. */
  answerRow(digit) {
    const { row } = this;
    const chosen = choose(row, digit);
    if (!chosen) return this.announce(fill(_("%(what)s has no %(digit)s"), { what: rowName(row), digit }));
    this.changed();
    this.announce(`${rowName(row)}: ${chosen}`);
    if (row.dataset.part === "flags") return undefined;
    const card = row.closest("[data-card]");
    const rows = rowsOf(card);
    const below = rows.slice(rows.indexOf(row) + 1).find((other) => other.dataset.part !== "flags" && !other.querySelector(":checked"));
    const next = below ?? (this.ranks ? null : nextOpenRow(this.form));
    if (next) this.enterRow(next);
    else if (this.ranks) this.pick(card.dataset.card);
    return undefined;
  }

  accept(yes) {
    const card = this.cards.get(this.picked ?? (this.keys.length === 1 ? this.keys[0] : ""));
    if (!card) return this.say(_("Pick a completion first: press its letter"));
    card.querySelector(`[name^="acceptable."][value="${yes ? "yes" : "no"}"]`).checked = true;
    this.changed();
    this.announce(fill(yes ? _("%(key)s is acceptable") : _("%(key)s is not acceptable"), { key: card.dataset.card }));
    const open = this.ranks ? null : nextOpenRow(this.form);
    return open ? this.enterRow(open) : undefined;
  }

  mark() {
    const key = this.#only();
    if (key) this.#marks.get(key)?.begin();
    else this.say(_("Pick a completion first: press its letter"));
  }

  edit() {
    const key = this.#only();
    if (key) this.#corrections.get(key)?.open();
    else this.say(_("Pick a completion first: press its letter"));
  }

  write() { this.form.querySelector("[data-demonstration-field]")?.focus(); }

  #only() { return this.picked ?? (this.keys.length === 1 ? this.keys[0] : null); }

  changed() {
    this.say("");
    this.form.classList.toggle("is-complete", this.isComplete);
    this.onChange();
  }

  // --- beginnings ---------------------------------------------------------------------------------
  #readRanking() {
    const ranks = Object.fromEntries([...this.form.querySelectorAll("[data-rank-field]")].map((field) => [field.name.slice(5), field.value]));
    this.ranking = Ranking.fromRanks(this.keys, ranks, { ties: this.ties });
  }

  #openParts() {
    const labels = JSON.parse(this.form.dataset.markLabels || "[]");
    const { announce } = this;
    const onChange = () => this.changed();
    for (const [key, card] of this.cards) {
      const holder = card.querySelector("[data-source] script");
      if (!holder) continue;
      const source = JSON.parse(holder.textContent);
      if (card.querySelector("[data-marks]")) {
        this.#marks.set(key, new Marks({ card, key, source, labels, onChange, announce, say: (words) => this.say(words) }));
      }
      const box = card.querySelector("[data-correction]");
      if (box) this.#corrections.set(key, new Correction({ box, source, key, onChange, announce }));
    }
    const field = this.form.querySelector("[data-demonstration-field]");
    if (field) this.#demonstration = new Demonstration({ field, count: this.form.querySelector("[data-demonstration-count]") });
  }

  #listen() {
    const { form } = this;
    form.addEventListener("submit", (event) => { event.preventDefault(); this.onSubmit(); });
    form.addEventListener("input", (event) => { if (event.target.name && event.target.type !== "hidden") this.changed(); });
    form.addEventListener("click", (event) => this.#clicked(event));
    form.addEventListener("focusin", (event) => {
      const card = event.target.closest("[data-card]");
      if (card && card.dataset.card !== this.picked) {
        this.picked = card.dataset.card;
        this.render();
      }
      const row = event.target.closest("[data-part]");
      if (row && row !== this.row) this.enterRow(row);
      else if (!row) this.leaveRow();
    });
    form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); this.onSubmit(); }
    });
    if (this.layout !== "tiers") return;
    enableDrag(form.querySelector("[data-ranking]"), {
      isOn: () => !this.isNarrow(),
      ties: () => this.ties,
      onPick: (key) => this.pick(key),
      onDrop: (key, { tier, place: where }) => {
        const { ranking } = this;
        this.change(key, where === "before" ? Ranking.insert(ranking, key, tier) : where === "after" ? Ranking.insert(ranking, key, tier + 1) : Ranking.put(ranking, key, tier));
      },
    });
  }

  #clicked(event) {
    const target = event.target.closest("button, [data-card]");
    if (!target) return;
    const key = target.closest("[data-card]")?.dataset.card;
    if (target.dataset.put) {
      const rank = Number(target.dataset.put);
      this.rank(key, Ranking.rankOf(this.ranking, key) === rank ? 0 : rank);
    } else if (target.dataset.verdict) this.decide(target);
    else if (target.matches("[data-more]")) this.unfold(target.closest("[data-card]"), target.previousElementSibling.classList.contains("is-clamped"));
    else if (target.matches("[data-mark]")) this.#marks.get(key)?.begin();
  }
}

const keyOf = (element) => element.closest("[data-card]")?.dataset.card;

/** Moves only what isn't there already, so that scrolling and focus stay where they are. */
function arrange(parent, elements) {
  elements.forEach((element, index) => {
    if (parent.children[index] !== element) parent.insertBefore(element, parent.children[index] ?? null);
  });
}
