// Writing: a correction of a completion with its word diff, and a demonstration from nothing.
//
//   <details data-correction>
//     <summary>edit</summary>
//     <textarea name="correction.a" data-correction-field></textarea>
//     <div data-diff hidden></div>
//   </details>
//   <textarea data-demonstration-field></textarea> <p data-demonstration-count></p>
//
//   new Correction({ box, source, key, onChange, announce })     a correction equal to its source counts as none
//   new Demonstration({ field, count })
//
// Fields grow by CSS (field-sizing) where the browser knows how, else by script.

import { countWords, wordDiff } from "diff";
import { _, fill, ngettext } from "i18n";
import { appendShown, namesIn } from "invisible";

const QUIET_MS = 150; // without a letter typed, before the difference is worked out
const CONTEXT = 90; // units that stay in sight beside a change
const LONG = 2 * CONTEXT + 80;
const MOST_PARTS = 600; // shown at once; a button brings the rest
const growsByItself = globalThis.CSS?.supports?.("field-sizing", "content");

export class Correction {
  #timer = 0;
  #shown = null; // the text the diff on the page is of

  constructor({ box, source, key, onChange = () => {}, announce = () => {} }) {
    Object.assign(this, { box, key, onChange, announce });
    this.field = box.querySelector("[data-correction-field]");
    this.diff = box.querySelector("[data-diff]");
    this.source = withPlainLineEnds(source); // as a text field keeps it
    // A form that was put aside and came back still has its note.
    this.note = box.querySelector(".correction-note") ?? make("p", "correction-note help");
    this.diff.before(this.note);
    this.field.addEventListener("input", () => { grow(this.field); this.#later(); this.onChange(); });
    box.addEventListener("toggle", () => this.#opened());
    this.refresh();
  }

  get changed() { return !this.isUntouched(); }

  /** Empty, or the completion as it was but for white space around it, which the server doesn't keep. */
  isUntouched(field = this.field) {
    const text = withPlainLineEnds(field.value).trim();
    return text === "" || text === this.source.trim();
  }

  open() {
    this.box.open = true;
    this.#opened();
    this.field.focus({ preventScroll: true });
    this.box.scrollIntoView({ block: "nearest" });
    this.field.scrollIntoView({ block: "nearest" });
  }

  /** After the field was filled by script. */
  refresh() {
    if (!this.isUntouched()) this.box.open = true;
    this.#shown = null;
    this.#opened();
  }

  #opened() {
    if (!this.box.open) return;
    if (!this.field.value) {
      this.field.value = this.source;
      this.field.setSelectionRange(0, 0);
      this.field.scrollTop = 0;
    }
    grow(this.field);
    if (this.#shown === null) this.#draw();
  }

  #later() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => whenIdle(() => this.#draw()), QUIET_MS);
  }

  #draw() {
    const text = withPlainLineEnds(this.field.value);
    // A text field shows no names in the place of what can't be seen.
    const names = namesIn(text);
    this.note.hidden = !names;
    this.note.textContent = names && fill(_("Holds characters that can't be seen here: %(names)s"), { names });
    this.box.classList.toggle("is-changed", this.changed);
    this.diff.hidden = false; // its room is there from the start, so nothing moves while one types
    if (text === this.#shown) return;
    this.#shown = text;
    const parts = this.changed ? wordDiff(this.source, text) : [];
    const body = make("div", "diff-text");
    body.dir = "auto";
    body.tabIndex = 0; // it scrolls
    body.setAttribute("role", "group");
    body.setAttribute("aria-label", fill(_("What you changed in completion %(key)s"), { key: this.key }));
    fillWith(body, parts);
    const scrolled = this.diff.querySelector(".diff-text")?.scrollTop ?? 0;
    this.diff.replaceChildren(this.#head(parts), body);
    body.scrollTop = scrolled;
  }

  #head(parts) {
    const head = make("div", "diff-head");
    const back = make("button", "button button-quiet button-small", _("back to the original"));
    back.type = "button";
    back.addEventListener("click", () => this.#restore());
    back.hidden = !parts.length;
    head.append(make("span", "diff-count", parts.length ? inWords(parts) : _("Nothing changed yet")), back);
    return head;
  }

  /** By way of the keyboard's own insertion where there is one, so that Ctrl+Z brings the correction back. */
  #restore() {
    this.field.focus();
    this.field.select();
    const done = document.execCommand?.("insertText", false, this.source);
    if (!done || this.field.value !== this.source) this.field.value = this.source;
    this.field.setSelectionRange(0, 0);
    grow(this.field);
    this.#draw();
    this.onChange();
    this.announce(_("Back to the original"));
  }
}

export class Demonstration {
  #timer = 0;

  constructor({ field, count }) {
    Object.assign(this, { field, count });
    field.addEventListener("input", () => {
      grow(field);
      clearTimeout(this.#timer);
      if (field.value.length < 20_000) this.refresh();
      else this.#timer = setTimeout(() => whenIdle(() => this.refresh()), QUIET_MS);
    });
    this.refresh();
  }

  refresh() {
    grow(this.field);
    const text = this.field.value.trim();
    if (!this.count) return;
    const words = countWords(text);
    // As the server counts them: a smiley is one.
    const characters = text.length - (text.match(/[\ud800-\udbff][\udc00-\udfff]/g)?.length ?? 0);
    const counted = `${numbered(ngettext("%(n)s word", "%(n)s words", words), words)} · ${numbered(ngettext("%(n)s character", "%(n)s characters", characters), characters)}`;
    this.count.textContent = text ? counted : "";
  }
}

// --- the difference as it is read ------------------------------------------------------------------
function inWords(parts) {
  const count = (kind) => parts.filter((part) => part.kind === kind).reduce((sum, part) => sum + countWords(part.text), 0);
  const [out, into] = [count("removed"), count("added")];
  if (!out && !into) return _("Signs or white space changed");
  const said = [];
  if (out) said.push(numbered(ngettext("%(n)s word out", "%(n)s words out", out), out));
  if (into) said.push(numbered(ngettext("%(n)s word in", "%(n)s words in", into), into));
  return said.join(", ");
}

function fillWith(body, parts, from = 0) {
  const made = document.createDocumentFragment();
  const upTo = Math.min(parts.length, from + MOST_PARTS);
  for (let index = from; index < upTo; index += 1) {
    const { kind, text } = parts[index];
    if (kind === "same") appendFolded(made, text, { isFirst: index === 0, isLast: index === parts.length - 1 });
    else made.append(changed(kind, text));
  }
  body.append(made);
  if (upTo === parts.length) return;
  const left = parts.slice(upTo).filter((part) => part.kind !== "same").length;
  const more = foldButton(numbered(ngettext("… %(n)s more change", "… %(n)s more changes", left), left));
  more.addEventListener("click", () => { more.remove(); fillWith(body, parts, upTo); });
  body.append(more);
}

function changed(kind, text) {
  const made = document.createElement(kind === "removed" ? "del" : "ins");
  text.split("\n").forEach((line, index) => {
    if (index) made.append(make("span", "diff-newline", "↵"), "\n");
    appendShown(made, line);
  });
  return made;
}

/** What stayed the same, its middle folded where it is long. */
function appendFolded(parent, text, { isFirst, isLast }) {
  const head = isFirst ? 0 : wordEnd(text, CONTEXT);
  const tail = isLast ? text.length : wordEnd(text, text.length - CONTEXT);
  if (text.length <= LONG || tail <= head) {
    appendShown(parent, text);
    return;
  }
  const hidden = text.slice(head, tail);
  const words = countWords(hidden);
  const button = foldButton(numbered(ngettext("… %(n)s word the same …", "… %(n)s words the same …", words), words));
  button.addEventListener("click", () => {
    const opened = document.createElement("span");
    appendShown(opened, hidden);
    opened.tabIndex = -1;
    button.replaceWith(opened);
    opened.focus({ preventScroll: true });
  });
  appendShown(parent, text.slice(0, head));
  parent.append(button);
  appendShown(parent, text.slice(tail));
}

/** The end of a word at this place or soon after; never within a surrogate pair. */
function wordEnd(text, at) {
  const space = text.slice(at, at + 40).search(/\s/);
  if (space >= 0) return at + space;
  const code = text.charCodeAt(at);
  return code >= 0xdc00 && code <= 0xdfff ? at + 1 : at;
}

// --- small things -----------------------------------------------------------------------------------
const withPlainLineEnds = (text) => text.replace(/\r\n?/g, "\n");
const numbered = (words, n) => fill(words, { n: n.toLocaleString(document.documentElement.lang || undefined) });
const whenIdle = (run) => (globalThis.requestIdleCallback ? requestIdleCallback(run, { timeout: 500 }) : setTimeout(run));

function make(name, className, words = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = words;
  return made;
}

function foldButton(words) {
  const button = make("button", "diff-fold", words);
  button.type = "button";
  return button;
}

function grow(field) {
  if (growsByItself) return;
  field.style.setProperty("height", "auto");
  field.style.setProperty("height", `${field.scrollHeight + 2}px`);
}
