// Marks on passages of a completion: wrong fact, rude, whatever the project lists, each with a comment if one likes.
//
//   <section data-card="a" tabindex="0">
//     <div data-card-text>…rendered…</div>
//     <div data-marks>
//       <input type="hidden" name="marks.a" value='[{"start":0,"end":4,"label":"rude"}]' data-marks-field>
//       <ul data-marks-list></ul>
//       <button type="button" data-mark>mark a passage</button>
//
//   const marks = new Marks({ card, key, source, labels, onChange, announce, say });
//   marks.begin(); marks.isOn; marks.onKey(event); marks.end(); marks.refresh();
//
// While marking, the source text stands where the rendered text was. The hidden field is the truth; it counts code
// points, and everything in here counts UTF-16 units.

import { Caret } from "caret";
import { _, fill, ngettext } from "i18n";
import { MarkList } from "marklist";
import { PAGE, closeMenu, keysLine, legend, openMenu, watchSelections } from "markmenu";
import { CodePoints, Folded, Words, charAfter, charBefore, snap } from "passages";
import { Rendered, STYLES, clearHighlights, highlight, placeOf } from "rendered";
import { keyOf } from "shortcuts";
import { SourceView } from "sourceview";

const MOST = 200; // marks of one completion; the server takes no more
const TYPING = "textarea, input:not([type=checkbox], [type=radio], [type=button])";
const MOVES = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "PageUp", "PageDown"];

let current = null; // the card that is being marked: one at a time
const cardOf = new WeakMap(); // [data-card-text] or [data-marks-text] -> its Marks
watchSelections((range, host) => cardOf.get(host)?.settled(range, host));

export class Marks {
  #card; #text; #source; #labels; #tags; #field; #part; #list; #points; #words;
  #marks = []; // { start, end, label, comment }, in order
  #past = [];
  #mark = null; // the one the caret is in
  #place = 0; // where the caret was when marking ended
  #page = 0;
  #box = null;
  #view = null;
  #caret = null;
  #folded = new Map();

  constructor({ card, key, source, labels, onChange = () => {}, announce = () => {}, say = () => {} }) {
    Object.assign(this, { key, onChange, announce, say });
    this.#card = card;
    this.#source = source;
    this.#labels = labels;
    this.#tags = tagsOf(labels);
    this.#points = new CodePoints(source);
    this.#words = new Words(source);
    this.#text = card.querySelector("[data-card-text]");
    this.#part = card.querySelector("[data-marks]");
    this.#field = card.querySelector("[data-marks-field]");
    this.#list = new MarkList(card.querySelector("[data-marks-list]"), {
      look: (mark) => this.#look(mark),
      onShow: (mark) => this.#find(mark),
      onRemove: (mark) => { this.#remove(mark); this.#focusAfterList(); },
      onComment: () => this.#write(),
    });
    // A form that was put aside and came back may still show what was open.
    for (const left of card.querySelectorAll("[data-marks-box], [data-marks-menu]")) left.remove();
    card.classList.remove("is-marking");
    cardOf.set(this.#text, this);
    this.#part.addEventListener("focusout", (event) => this.#left(event));
    this.refresh();
  }

  /** Whether passages are being marked: the source text is there, and keys go to onKey. */
  get isOn() { return this.#box !== null; }

  // --- the field ------------------------------------------------------------------------------------
  refresh() {
    let stored = [];
    try {
      stored = JSON.parse(this.#field.value || "[]");
    } catch {
      // What can't be read stays in the field until something is marked; the server names the problem.
    }
    const unit = (point) => Math.min(this.#points.toUnits(point), this.#source.length);
    this.#marks = (Array.isArray(stored) ? stored : [])
      .map(({ start, end, label, comment = "" }) => ({ start: unit(start), end: unit(end), label: String(label), comment: String(comment) }))
      .filter(({ start, end }) => start < end)
      .sort(inOrder);
    this.#past = [];
    this.#mark = null;
    this.#draw();
  }

  #write() {
    const stored = this.#marks.map(({ start, end, label, comment }) => {
      const mark = { start: this.#points.toPoints(start), end: this.#points.toPoints(end), label };
      return comment.trim() ? { ...mark, comment: comment.trim() } : mark;
    });
    this.#field.value = stored.length ? JSON.stringify(stored) : "";
    this.onChange();
  }

  #change(marks) {
    this.#past.push(this.#marks.map((mark) => ({ ...mark })));
    this.#marks = [...marks].sort(inOrder);
    this.#write();
    this.#draw();
  }

  // --- marking --------------------------------------------------------------------------------------
  /** The source text takes the place of the rendered one, with the caret at `at` or where one was reading. */
  begin(at = null) {
    if (this.isOn) {
      if (at) this.#put({ from: at[0], to: at[1] });
      return;
    }
    current?.end({ focus: false });
    closeMenu();
    const { top, height } = this.#text.getBoundingClientRect();
    const header = document.querySelector(".site-header")?.getBoundingClientRect().bottom ?? 0;
    const passed = height ? Math.max(0, (header - top) / height) : 0;
    clearHighlights(this.#text);
    this.#box = this.#boxWith(height);
    const text = this.#box.querySelector("[data-marks-text]");
    this.#view = new SourceView(text, this.#source);
    this.#caret = new Caret(this.#view, this.#words, this.#source);
    cardOf.set(text, this);
    current = this;
    this.#card.classList.add("is-marking");
    this.#text.after(this.#box);
    this.#drawView();
    this.#focusText();
    this.#box.scrollIntoView({ block: "nearest" });
    this.announce(fill(_("Marking passages of completion %(key)s. Arrows go from word to word, digits mark, Escape ends."), { key: this.key }));
    const stop = at ?? this.#words.at(this.#place || Math.floor(passed * this.#source.length));
    if (stop) this.#put({ from: stop[0], to: stop[1] }, { isQuiet: true });
  }

  end({ focus = true } = {}) {
    if (!this.isOn) return;
    if (this.#caret.at) this.#place = this.#caret.at.from;
    closeMenu();
    const box = this.#box;
    const hadFocus = box.contains(document.activeElement) || this.#part.contains(document.activeElement) || document.activeElement === document.body;
    current = this.#box = this.#view = this.#caret = this.#mark = null;
    box.remove();
    this.#card.classList.remove("is-marking");
    getSelection().removeAllRanges();
    this.#draw();
    if (!focus) return;
    if (hadFocus) this.#card.focus({ preventScroll: true });
    this.#card.scrollIntoView({ block: "nearest" });
    const n = this.#marks.length;
    this.announce(n ? fill(ngettext("%(n)s passage marked", "%(n)s passages marked", n), { n }) : _("Nothing is marked"));
  }

  /** Puts the label (counted from 1) on what is selected, or takes it off where it is there already. */
  toggle(number) {
    const label = this.#labels[number - 1];
    if (!label) return this.announce(fill(_("There is no label %(n)s"), { n: number }));
    if (!this.#caret?.at) return this.announce(_("Nothing is selected"));
    const { from, to, focus } = this.#caret.at;
    this.#label(from, to, label);
    // The caret stays with the last word, ready for the next.
    this.#put({ from: focus[0], to: focus[1] }, { isQuiet: true, mark: this.#mark });
    return this.#focusText();
  }

  #label(start, end, label) {
    const known = this.#marks.find((mark) => mark.start === start && mark.end === end && mark.label === label);
    if (known) return this.#remove(known);
    if (this.#marks.length >= MOST) return this.say(fill(_("A completion takes at most %(n)s marks"), { n: MOST }));
    const mark = { start, end, label, comment: "" };
    this.#mark = mark;
    this.#change([...this.#marks, mark]);
    return this.announce(this.#inWords(mark));
  }

  #remove(mark) {
    const others = this.#marks.filter((other) => other !== mark);
    this.#mark = this.#markUnder(others);
    this.#change(others);
    this.announce(fill(_("Removed: %(mark)s"), { mark: this.#inWords(mark) }));
  }

  #undo() {
    if (!this.#past.length) return this.announce(_("Nothing to undo"));
    this.#marks = this.#past.pop();
    this.#mark = this.#markUnder(this.#marks);
    this.#write();
    this.#draw();
    return this.announce(_("Undone"));
  }

  // --- keys -----------------------------------------------------------------------------------------
  /** True if it took the key. */
  onKey(event) {
    const { target } = event;
    if (!this.isOn || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return false;
    if (target.matches(TYPING) || (target !== document.body && !this.#holds(target))) return false;
    const key = keyOf(event);
    if (target.closest("button") && ["Enter", " ", "Tab", "shift+Tab"].includes(key)) return false;
    closeMenu();
    if (this.#run(key) === false) return false;
    event.preventDefault();
    return true;
  }

  #run(key) {
    const move = key.replace("shift+", "");
    if (MOVES.includes(move)) return this.#move(move, { isExtending: move !== key });
    if (/^[1-9]$/.test(key)) return this.toggle(this.#page * PAGE + Number(key));
    switch (key) {
      case "Escape": return this.end();
      case "Enter": return this.#comment();
      case "Delete": case "Backspace": return this.#mark ? this.#remove(this.#mark) : this.announce(_("No mark here"));
      case "n": return this.#next(1);
      case "p": return this.#next(-1);
      case "Tab": return this.#marks.length ? this.#next(1) : false;
      case "shift+Tab": return this.#marks.length ? this.#next(-1) : false;
      case "u": return this.#undo();
      case "0": return this.#turnPage();
      case "]": case "+": return this.#stretch("to", charAfter);
      case "[": case "-": return this.#stretch("to", charBefore);
      case "{": return this.#stretch("from", charBefore);
      case "}": return this.#stretch("from", charAfter);
      default: return false;
    }
  }

  #move(key, { isExtending }) {
    if (!this.#caret.at) return undefined;
    this.#focusText();
    const stop = this.#caret.goal(key);
    if (!stop) return this.announce(_("The text ends here"));
    return this.#put(isExtending ? this.#caret.extended(stop) : { from: stop[0], to: stop[1] });
  }

  /** The first or the last word. With Ctrl, so it is no key of the bench. */
  #jump(event) {
    if (!event.ctrlKey || event.altKey || !["Home", "End"].includes(event.key)) return;
    event.preventDefault();
    this.#move(`ctrl+${event.key}`, { isExtending: event.shiftKey });
  }

  #stretch(end, step) {
    const next = this.#caret.at && this.#caret.stretched(end, step);
    if (next) this.#put(next);
  }

  #next(by) {
    if (!this.#marks.length) return this.announce(_("Nothing is marked"));
    const n = this.#marks.length;
    const at = this.#marks.indexOf(this.#mark);
    const place = this.#caret.at?.from ?? 0;
    const near = by > 0 ? this.#marks.findIndex(({ start }) => start >= place) : this.#marks.findLastIndex(({ start }) => start <= place);
    const index = at >= 0 ? (at + by + n) % n : near >= 0 ? near : by > 0 ? 0 : n - 1;
    return this.#show(this.#marks[index]);
  }

  #show(mark) {
    this.#focusText();
    this.#put({ from: mark.start, to: mark.end }, { isQuiet: true, mark });
    this.announce(this.#inWords(mark));
  }

  #comment() {
    const mark = this.#mark;
    if (!mark) return this.announce(_("No mark here. A digit sets one."));
    return this.#list.edit(mark, { onClose: (words) => {
      this.#focusText();
      this.#put({ from: mark.start, to: mark.end }, { isQuiet: true, mark });
      this.announce(words);
    } });
  }

  #turnPage() {
    const pages = Math.ceil(this.#labels.length / PAGE);
    if (pages < 2) return false;
    this.#page = (this.#page + 1) % pages;
    const fresh = this.#legend();
    this.#box.querySelector("[data-marks-legend]").replaceWith(fresh);
    return this.announce([...fresh.querySelectorAll(".mark-label")].map((button) => button.textContent).join(", "));
  }

  // --- the caret ------------------------------------------------------------------------------------
  #put(at, { isQuiet = false, mark = null } = {}) {
    this.#caret.put(at);
    const { from, to, anchor, focus } = this.#caret.at;
    this.#mark = mark ?? this.#markUnder(this.#marks);
    this.#view.setCurrent(this.#mark && this.#drawn(this.#mark));
    this.#list.setCurrent(this.#mark);
    this.#caret.reveal(this.#card.closest("form")?.querySelector(".task-bar")?.getBoundingClientRect().top ?? innerHeight);
    if (isQuiet) return;
    const words = this.#mark ? _("%(quote)s, marked %(label)s") : anchor[0] === focus[0] ? "%(quote)s" : _("Selected: %(quote)s");
    this.announce(fill(words, { quote: shortened(this.#source.slice(from, to)), label: this.#mark?.label }));
  }

  /** The mark where the caret is: the one it was in already, else what fits exactly, else the shortest. */
  #markUnder(marks) {
    if (!this.#caret?.at) return null;
    const [start, end] = this.#caret.at.focus;
    const here = marks.filter((mark) => mark.start < end && mark.end > start);
    if (here.includes(this.#mark)) return this.#mark;
    const exact = here.find((mark) => mark.start === start && mark.end === end);
    return exact ?? here.sort((a, b) => a.end - a.start - (b.end - b.start))[0] ?? null;
  }

  #focusText() { this.#view?.element.focus({ preventScroll: true }); }

  #holds(element) { return this.#box.contains(element) || this.#part.contains(element) || Boolean(element.closest("[data-marks-menu]")); }

  /** Marking lasts while the focus is with the text or its list. */
  #left({ relatedTarget }) {
    if (this.isOn && relatedTarget && !this.#holds(relatedTarget)) this.end({ focus: false });
  }

  // --- by mouse and finger --------------------------------------------------------------------------
  /** A selection made by hand has come to rest. */
  settled(range, host) {
    if (!this.#labels.length || !this.#card.isConnected || host.closest(".is-blurred")) return;
    if (host === this.#text) this.#offerIn(range);
    else this.#offerHere(range);
  }

  #offerHere(range) {
    const start = this.#view.placeOf(range.startContainer, range.startOffset);
    const end = this.#view.placeOf(range.endContainer, range.endOffset);
    if (start === null || end === null || start >= end) return;
    const quote = this.#source.slice(start, end);
    const isBlank = !quote.trim();
    const from = snap(this.#source, isBlank ? start : start + quote.length - quote.trimStart().length);
    const to = snap(this.#source, isBlank ? end : end - quote.length + quote.trimEnd().length);
    if (from !== this.#caret.at?.from || to !== this.#caret.at?.to) this.#put({ from, to });
    this.#openMenu(this.#view.rangeOf(from, to), (number) => this.toggle(number));
  }

  /** In the rendered text: words that stand in the source once are marked there; others are shown there first. */
  #offerIn(range) {
    const found = new Rendered(this.#text).within(range);
    if (!found.quote.trim()) return;
    const places = this.#fold(false).find(found.quote);
    if (places.length === 1) {
      const [[from, to]] = places;
      this.#openMenu(range, (number) => {
        getSelection().removeAllRanges();
        this.#label(from, to, this.#labels[number - 1]);
      });
      return;
    }
    const run = () => this.begin(this.#guess(found, places));
    openMenu({ card: this.#card, range, items: [{ words: _("mark it in the source text"), run }] });
  }

  #openMenu(range, onLabel) {
    const items = this.#labels.map((label, index) => {
      const digit = this.isOn && Math.floor(index / PAGE) === this.#page ? String((index % PAGE) + 1) : "";
      return { words: label, digit, style: this.#styleOf(label), run: () => onLabel(index + 1) };
    });
    openMenu({ card: this.#card, range, items });
  }

  #guess({ quote, ordinal, share }, places) {
    const wanted = [places, this.#fold(true).find(quote), this.#fold(true).find(quote.trim().slice(0, 30))];
    const found = wanted.find((some) => some.length);
    return found ? found[Math.min(ordinal, found.length - 1)] : this.#words.at(Math.floor(share * this.#source.length));
  }

  #fold(withoutMarkup) {
    if (!this.#folded.has(withoutMarkup)) this.#folded.set(withoutMarkup, new Folded(this.#source, { withoutMarkup }));
    return this.#folded.get(withoutMarkup);
  }

  #clicked(event) {
    const { isCollapsed, anchorNode, anchorOffset } = getSelection();
    const place = anchorNode && isCollapsed && event.detail < 2 ? this.#view.placeOf(anchorNode, anchorOffset) : null;
    if (place === null) return;
    const before = this.#words.at(Math.max(0, place - 1));
    const stop = before && before[1] >= place ? before : this.#words.at(place);
    if (stop) this.#put({ from: stop[0], to: stop[1] });
  }

  // --- what is seen ---------------------------------------------------------------------------------
  #boxWith(height) {
    const box = document.createElement("div");
    box.className = "marks-box";
    box.dataset.marksBox = "";
    const text = document.createElement("div");
    text.className = "marks-text";
    text.dataset.marksText = "";
    if (this.#text.hasAttribute("data-blurred")) text.dataset.blurred = "";
    text.tabIndex = 0;
    text.setAttribute("role", "application");
    text.setAttribute("aria-label", fill(_("Source text of completion %(key)s"), { key: this.key }));
    text.style.setProperty("--height", `${Math.round(height)}px`);
    text.addEventListener("click", (event) => this.#clicked(event));
    text.addEventListener("keydown", (event) => this.#jump(event));
    box.addEventListener("focusout", (event) => this.#left(event));
    box.append(text, this.#legend(), keysLine());
    return box;
  }

  #legend() {
    return legend({
      labels: this.#labels, page: this.#page, styleOf: (label) => this.#styleOf(label),
      onLabel: (number) => this.toggle(number), onTurn: () => this.#turnPage(), onDone: () => this.end(),
    });
  }

  #draw() {
    this.#list.draw(this.#marks, this.#mark);
    if (this.isOn) this.#drawView();
    else highlight(this.#text, () => this.#marks.map((mark) => ({ ...this.#placeOf(mark), style: this.#styleOf(mark.label) })));
  }

  #drawView() {
    this.#view.draw(this.#marks.map((mark) => this.#drawn(mark)));
    this.#view.setCurrent(this.#mark && this.#drawn(this.#mark));
    this.#caret.show();
  }

  #styleOf(label) { return Math.max(0, this.#labels.indexOf(label)) % STYLES; }

  #tagOf(label) { return this.#tags.get(label) ?? "?"; }

  #drawn({ start, end, label }) { return { start, end, style: this.#styleOf(label), tag: this.#tagOf(label) }; }

  #look(mark) {
    const quote = shortened(this.#source.slice(mark.start, mark.end));
    return { style: this.#styleOf(mark.label), tag: this.#tagOf(mark.label), quote, words: this.#inWords(mark) };
  }

  #inWords({ start, end, label, comment }) {
    const quote = `${label}: “${shortened(this.#source.slice(start, end))}”`;
    return comment ? `${quote}, ${shortened(comment)}` : quote;
  }

  #placeOf({ start, end }) { return placeOf(this.#source.slice(start, end), start, (withoutMarkup) => this.#fold(withoutMarkup)); }

  #find(mark) {
    if (this.isOn) {
      this.#show(mark);
      return;
    }
    const range = this.#text.classList.contains("is-clamped") ? null : new Rendered(this.#text).rangeOf(this.#placeOf(mark));
    if (!range) {
      this.begin([mark.start, mark.end]);
      return;
    }
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    range.startContainer.parentElement.scrollIntoView({ block: "nearest" });
    this.announce(this.#inWords(mark));
  }

  #focusAfterList() {
    if (this.isOn) this.#focusText();
    else if (!this.#list.focus()) this.#part.querySelector("[data-mark]").focus();
  }
}

const inOrder = (a, b) => a.start - b.start || a.end - b.end;

/** Long quotes by their beginning and end, cut between characters. */
function shortened(text) {
  const words = text.slice(0, 4000).trim().replace(/\s+/g, " ");
  if (words.length <= 72 && text.length <= 4000) return words;
  const tail = text.slice(-200).trim().replace(/\s+/g, " ");
  return `${words.slice(0, charBefore(words, 44))} … ${tail.slice(charAfter(tail, Math.max(0, tail.length - 22)))}`;
}

/** Initials that tell the labels apart: "wrong fact" is WF, "rude" is RU. */
function tagsOf(labels) {
  const tags = new Map();
  const taken = new Set();
  for (const label of labels) {
    const words = label.match(/[\p{L}\p{N}]+/gu) ?? [label];
    const letters = words.length > 1 ? words.slice(0, 3).map((word) => [...word][0]) : [...words[0]].slice(0, 2);
    const initials = letters.join("").toUpperCase();
    let tag = initials;
    for (let n = 2; taken.has(tag); n += 1) tag = `${initials}${n}`;
    taken.add(tag);
    tags.set(label, tag);
  }
  return tags;
}
