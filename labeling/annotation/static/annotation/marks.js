// Marks on passages of a completion: wrong fact, rude, whatever the project lists, each with a comment if one likes.
//
//   <section data-card="a" tabindex="0">
//     <div data-card-text>…rendered…</div>
//     <div data-marks>
//       <input type="hidden" name="marks.a" value='[{"start":0,"end":4,"label":"rude"}]' data-marks-field>
//       <ul data-marks-list></ul>
//       <button type="button" data-mark>mark a passage</button>
//
// While marking, the source text stands where the rendered text was, and the browser's own selection is the caret: by
// keys it moves in words. The hidden field is the truth. It counts code points; in here everything counts UTF-16 units.

import { _, fill, ngettext } from "i18n";
import { CodePoints, Folded, Words, charAfter, charBefore, isRightToLeft, snap } from "passages";
import { Rendered, clearHighlights, highlight } from "rendered";
import { keyOf } from "shortcuts";
import { SourceView } from "sourceview";

const MOST = 200; // marks of one completion; the server takes no more
const STYLES = 6;
const PAGE = 9; // labels that digits reach at once
const TYPING = "textarea, input:not([type=checkbox], [type=radio], [type=button])";

let current = null; // the card that is being marked: one at a time
let withMenu = null;
const cardOf = new WeakMap(); // [data-card-text] or [data-marks-text] -> its Marks

export class Marks {
  #card; #text; #source; #labels; #tags; #field; #list;
  #marks = []; // { start, end, label, comment }, in order
  #past = [];
  #at = null; // what is selected: { from, to, anchor, focus }, the last two are stops of the caret
  #place = 0; // where the caret was when marking ended
  #mark = null; // the mark the caret is in
  #editing = null;
  #page = 0;
  #goal = null; // where on a line the caret wants to be, in pixels
  #box = null;
  #view = null;
  #menu = null;
  #folded = new Map();

  constructor({ card, key, source, labels, onChange = () => {}, announce = () => {}, say = () => {} }) {
    Object.assign(this, { key, onChange, announce, say });
    this.#card = card;
    this.#source = source;
    this.#labels = labels;
    this.#tags = tagsOf(labels);
    this.#text = card.querySelector("[data-card-text]");
    this.#field = card.querySelector("[data-marks-field]");
    this.#list = card.querySelector("[data-marks-list]");
    // A form that was put aside and came back may still show what was open.
    for (const left of card.querySelectorAll("[data-marks-box], [data-marks-menu]")) left.remove();
    card.classList.remove("is-marking");
    this.points = new CodePoints(source);
    this.words = new Words(source);
    cardOf.set(this.#text, this);
    card.querySelector("[data-marks]").addEventListener("focusout", (event) => this.#left(event));
    this.refresh();
  }

  get isOn() { return this.#box !== null; }

  // --- the field ------------------------------------------------------------------------------------
  refresh() {
    let stored = [];
    try {
      stored = JSON.parse(this.#field.value || "[]");
    } catch {
      // What can't be read stays in the field until something is marked; the server names the problem.
    }
    const length = this.#source.length;
    this.#marks = (Array.isArray(stored) ? stored : [])
      .map(({ start, end, label, comment = "" }) => ({
        start: Math.min(this.points.toUnits(start), length), end: Math.min(this.points.toUnits(end), length), label: String(label), comment: String(comment),
      }))
      .filter(({ start, end }) => start < end)
      .sort(inOrder);
    this.#past = [];
    this.#mark = null;
    this.#editing = null;
    this.#draw();
  }

  #write() {
    const stored = this.#marks.map(({ start, end, label, comment }) => ({
      start: this.points.toPoints(start), end: this.points.toPoints(end), label, ...(comment.trim() ? { comment: comment.trim() } : {}),
    }));
    this.#field.value = stored.length ? JSON.stringify(stored) : "";
    this.onChange();
  }

  #change(marks) {
    this.#past.push(this.#marks.map((mark) => ({ ...mark })));
    this.#marks = [...marks].sort(inOrder);
    this.#editing = null;
    this.#write();
    this.#draw();
  }

  // --- marking --------------------------------------------------------------------------------------
  /** The source text takes the place of the rendered one, with the caret at `at` or where one was reading. */
  begin(at = null) {
    if (this.isOn) {
      if (at) this.#select(...at);
      return;
    }
    current?.end({ focus: false });
    this.#closeMenu();
    const { top, height } = this.#text.getBoundingClientRect();
    const passed = height ? Math.max(0, (headerBottom() - top) / height) : 0;
    this.#box = this.#boxWith(height);
    this.#card.classList.add("is-marking");
    this.#text.after(this.#box);
    const text = this.#box.querySelector("[data-marks-text]");
    this.#view = new SourceView(text, this.#source);
    cardOf.set(text, this);
    current = this;
    clearHighlights(this.#text);
    this.#drawView();
    text.focus({ preventScroll: true });
    this.#box.scrollIntoView({ block: "nearest" });
    const place = this.#place || Math.floor(passed * this.#source.length);
    const words = _("Marking passages of completion %(key)s. Arrows go from word to word, digits mark, Escape ends.");
    this.announce(fill(words, { key: this.key }));
    const stop = at ?? this.words.at(place);
    if (stop) this.#select(...stop, { quiet: true });
  }

  end({ focus = true } = {}) {
    if (!this.isOn) return;
    if (this.#at) this.#place = this.#at.from;
    this.#closeMenu();
    const hadFocus = this.#box.contains(document.activeElement) || document.activeElement === document.body;
    this.#box.remove();
    this.#box = null;
    this.#view = null;
    this.#at = null;
    this.#mark = null;
    current = null;
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
    if (!this.#at) return undefined;
    this.#put(this.#at.from, this.#at.to, label);
    // The caret stays with the last word, ready for the next.
    if (this.isOn) {
      const { focus } = this.#at;
      this.#select(...focus, { quiet: true, mark: this.#mark });
      this.#focusText();
    }
    return undefined;
  }

  #put(start, end, label) {
    const known = this.#marks.find((mark) => mark.start === start && mark.end === end && mark.label === label);
    if (known) return this.#remove(known);
    if (start >= end) return this.announce(_("Nothing is selected"));
    if (this.#marks.length >= MOST) return this.say(fill(_("A completion takes at most %(n)s marks"), { n: MOST }));
    const mark = { start, end, label, comment: "" };
    this.#mark = mark;
    this.#change([...this.#marks, mark]);
    return this.announce(this.#inWords(mark));
  }

  #remove(mark) {
    if (this.#mark === mark) this.#mark = null;
    this.#change(this.#marks.filter((other) => other !== mark));
    this.announce(fill(_("Removed: %(mark)s"), { mark: this.#inWords(mark) }));
  }

  #undo() {
    if (!this.#past.length) return this.announce(_("Nothing to undo"));
    this.#marks = this.#past.pop();
    this.#mark = null;
    this.#editing = null;
    this.#write();
    this.#draw();
    return this.announce(_("Undone"));
  }

  // --- keys -----------------------------------------------------------------------------------------
  /** True if it took the key. */
  onKey(event) {
    const { target } = event;
    if (!this.isOn || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return false;
    if (target !== document.body && !this.#holds(target)) return false;
    if (target.closest(TYPING)) return false;
    const key = keyOf(event);
    if (target.closest("button") && ["Enter", " ", "Tab", "shift+Tab"].includes(key)) return false;
    if (key !== "Escape") this.#closeMenu();
    const run = this.#keys()[key];
    if (!run || run() === false) return false;
    event.preventDefault();
    if (!this.#holds(document.activeElement)) this.#focusText();
    return true;
  }

  #keys() {
    const isTurned = this.#at !== null && isRightToLeft(this.#source, this.#at.focus[0]);
    const [back, on] = isTurned ? ["ArrowRight", "ArrowLeft"] : ["ArrowLeft", "ArrowRight"];
    const keys = {
      Escape: () => this.#escape(),
      Enter: () => this.#comment(),
      Delete: () => this.#removeHere(),
      Backspace: () => this.#removeHere(),
      n: () => this.#next(1),
      p: () => this.#next(-1),
      Tab: () => (this.#marks.length ? this.#next(1) : false),
      "shift+Tab": () => (this.#marks.length ? this.#next(-1) : false),
      u: () => this.#undo(),
      0: () => this.#turnPage(),
      "]": () => this.#stretch("to", charAfter),
      "[": () => this.#stretch("to", charBefore),
      "+": () => this.#stretch("to", charAfter),
      "-": () => this.#stretch("to", charBefore),
      "{": () => this.#stretch("from", charBefore),
      "}": () => this.#stretch("from", charAfter),
    };
    for (let digit = 1; digit <= PAGE; digit += 1) keys[digit] = () => this.toggle(this.#page * PAGE + digit);
    const moves = {
      [back]: (stop) => this.words.before(stop),
      [on]: (stop) => this.words.after(stop),
      ArrowUp: (stop) => this.#line(stop, -1),
      ArrowDown: (stop) => this.#line(stop, 1),
      Home: (stop) => this.#lineEnd(stop, -1),
      End: (stop) => this.#lineEnd(stop, 1),
      PageUp: (stop) => this.#line(stop, -10),
      PageDown: (stop) => this.#line(stop, 10),
    };
    for (const [key, move] of Object.entries(moves)) {
      keys[key] = () => this.#move(move, { vertical: /Up|Down/.test(key) });
      keys[`shift+${key}`] = () => this.#move(move, { vertical: /Up|Down/.test(key), extends: true });
    }
    return keys;
  }

  #escape() {
    if (this.#menu) this.#closeMenu();
    else this.end();
  }

  #move(to, { vertical = false, extends: isExtending = false } = {}) {
    if (!this.#at) return;
    const { from, anchor, focus } = this.#at;
    if (!vertical) this.#goal = null;
    const next = to(focus);
    if (!next) return this.announce(_("The text ends here"));
    if (!isExtending) return this.#select(...next);
    // Coming back into what the selection began with shrinks it to that.
    const within = next[0] >= anchor[0] && next[1] <= anchor[1] && from < focus[1];
    const goal = within ? anchor : next;
    return this.#select(Math.min(anchor[0], goal[0]), Math.max(anchor[1], goal[1]), { anchor, focus: goal });
  }

  /** One end of the selection by a character, for what is more or less than words. */
  #stretch(end, step) {
    if (!this.#at) return;
    const { from, to } = this.#at;
    const place = step(this.#source, end === "to" ? to : from);
    const [start, stop] = end === "to" ? [from, place] : [place, to];
    if (start < stop) this.#select(start, stop);
  }

  #line(stop, by) {
    let at = stop;
    for (let n = 0; n < Math.abs(by); n += 1) at = this.#nearby(at, Math.sign(by)) ?? at;
    return at === stop ? this.#lineEnd(stop, Math.sign(by)) : at;
  }

  /** The stop in the line below or above that is nearest to where the caret wants to be. */
  #nearby(stop, by) {
    const here = this.#view.rectOf(stop);
    this.#goal ??= here.left + here.width / 2;
    let best = null;
    let line = null;
    for (let at = this.#step(stop, by); at; at = this.#step(at, by)) {
      const rect = this.#view.rectOf(at);
      if (line === null && isSameLine(rect, here)) continue;
      line ??= rect;
      if (!isSameLine(rect, line)) break;
      const distance = Math.abs(rect.left + rect.width / 2 - this.#goal);
      if (!best || distance < best.distance) best = { at, distance };
    }
    return best?.at ?? null;
  }

  #lineEnd(stop, by) {
    const here = this.#view.rectOf(stop);
    let last = stop;
    for (let at = this.#step(stop, by); at && isSameLine(this.#view.rectOf(at), here); at = this.#step(at, by)) last = at;
    return last;
  }

  #step(stop, by) { return by > 0 ? this.words.after(stop) : this.words.before(stop); }

  #next(by) {
    if (!this.#marks.length) return this.announce(_("Nothing is marked"));
    const at = this.#marks.indexOf(this.#mark);
    const place = this.#at?.from ?? 0;
    const ahead = by > 0 ? this.#marks.findIndex((mark) => mark.start >= place) : this.#marks.findLastIndex((mark) => mark.start <= place);
    const n = this.#marks.length;
    const index = at >= 0 ? (at + by + n) % n : ahead >= 0 ? ahead : by > 0 ? 0 : n - 1;
    return this.#show(this.#marks[index]);
  }

  #show(mark) {
    this.#select(mark.start, mark.end, { quiet: true, mark });
    this.announce(this.#inWords(mark));
  }

  #comment() {
    if (!this.#mark) return this.announce(_("No mark here. A digit sets one."));
    return this.#edit(this.#mark);
  }

  #removeHere() {
    if (!this.#mark) return this.announce(_("No mark here"));
    return this.#remove(this.#mark);
  }

  #turnPage() {
    const pages = Math.ceil(this.#labels.length / PAGE);
    if (pages < 2) return false;
    this.#page = (this.#page + 1) % pages;
    const fresh = this.#legend();
    this.#box.querySelector("[data-marks-legend]").replaceWith(fresh);
    return this.announce([...fresh.querySelectorAll("[data-label]")].map((button) => button.textContent).join(", "));
  }

  // --- the caret ------------------------------------------------------------------------------------
  #select(from, to, { anchor = [from, to], focus = [from, to], quiet = false, mark = null } = {}) {
    this.#at = { from, to, anchor, focus };
    this.#mark = mark ?? this.#markAt(focus);
    const range = this.#view.rangeOf(from, to);
    getSelection().setBaseAndExtent(range.startContainer, range.startOffset, range.endContainer, range.endOffset);
    this.#view.setCurrent(this.#mark);
    this.#showInList();
    this.#reveal(focus);
    if (quiet) return;
    const quote = shortened(this.#source.slice(from, to));
    const isOneWord = anchor[0] === focus[0];
    const words = this.#mark ? _("%(quote)s, marked %(label)s") : isOneWord ? "%(quote)s" : _("Selected: %(quote)s");
    this.announce(fill(words, { quote, label: this.#mark?.label }));
  }

  /** The mark at this stop: the one the caret was in already, else the shortest. */
  #markAt([start, end]) {
    const here = this.#marks.filter((mark) => mark.start < end && mark.end > start);
    if (here.includes(this.#mark)) return this.#mark;
    return here.sort((a, b) => a.end - a.start - (b.end - b.start))[0] ?? null;
  }

  #reveal(stop) {
    const { element } = this.#view;
    const outer = element.getBoundingClientRect();
    let rect = this.#view.rectOf(stop);
    const room = Math.min(rect.height * 1.5, outer.height / 4);
    const above = outer.top + room - rect.top;
    const below = rect.bottom - (outer.bottom - room);
    if (above > 0) element.scrollTop -= above;
    else if (below > 0) element.scrollTop += below;
    if (above > 0 || below > 0) rect = this.#view.rectOf(stop);
    const bottom = this.#card.closest("form")?.querySelector(".task-bar")?.getBoundingClientRect().top ?? innerHeight;
    if (rect.top < headerBottom() + rect.height) scrollBy(0, rect.top - headerBottom() - rect.height * 2);
    else if (rect.bottom > bottom - rect.height) scrollBy(0, rect.bottom - bottom + rect.height * 2);
  }

  #focusText() { this.#view?.element.focus({ preventScroll: true }); }

  #holds(element) { return this.#box?.contains(element) || this.#card.querySelector("[data-marks]").contains(element) || Boolean(this.#menu?.contains(element)); }

  // --- by mouse and finger --------------------------------------------------------------------------
  /** A selection made by hand has come to rest. */
  settled(range, host) {
    if (!this.#labels.length || host.closest(".is-blurred")) return;
    if (host === this.#text) return this.#offerIn(range);
    const start = this.#view.placeOf(range.startContainer, range.startOffset);
    const end = this.#view.placeOf(range.endContainer, range.endOffset);
    if (start === null || end === null) return;
    const quote = this.#source.slice(start, end);
    const from = snap(this.#source, start + (quote.trim() ? quote.length - quote.trimStart().length : 0));
    const to = snap(this.#source, end - (quote.trim() ? quote.length - quote.trimEnd().length : 0));
    if (from >= to) return;
    if (from !== this.#at?.from || to !== this.#at?.to) this.#select(from, to);
    this.#openMenu(this.#view.rangeOf(from, to), (label) => {
      this.#put(from, to, label);
      this.#focusText();
    });
  }

  /** In the rendered text: words that stand in the source once are marked there; others are shown there first. */
  #offerIn(range) {
    const rendered = new Rendered(this.#text);
    const { quote, ordinal, share } = rendered.within(range);
    if (!quote.trim()) return;
    const found = this.#fold(false).find(quote);
    if (found.length === 1) {
      const [[from, to]] = found;
      this.#openMenu(range, (label) => { getSelection().removeAllRanges(); this.#put(from, to, label); });
    } else this.#openMenu(range, null, () => this.begin(this.#guess(quote, found, ordinal, share)));
  }

  #guess(quote, found, ordinal, share) {
    const loose = found.length ? found : this.#fold(true).find(quote);
    if (loose.length) return loose[Math.min(ordinal, loose.length - 1)];
    const beginning = this.#fold(true).find(quote.trim().slice(0, 30));
    if (beginning.length) return beginning[Math.min(ordinal, beginning.length - 1)];
    return this.words.at(Math.floor(share * this.#source.length));
  }

  #fold(withoutMarkup) {
    if (!this.#folded.has(withoutMarkup)) this.#folded.set(withoutMarkup, new Folded(this.#source, { withoutMarkup }));
    return this.#folded.get(withoutMarkup);
  }

  /** Labels beside what is selected; without `onLabel`, one button that leads to the source text. */
  #openMenu(range, onLabel, onMark = null) {
    this.#closeMenu();
    const menu = make("div", "marks-menu");
    menu.dataset.marksMenu = "";
    menu.setAttribute("role", "toolbar");
    menu.setAttribute("aria-label", _("Mark what is selected"));
    if (onLabel) {
      this.#labels.forEach((label, index) => {
        const button = this.#labelButton(label, index, { withDigit: this.isOn && Math.floor(index / PAGE) === this.#page });
        button.addEventListener("click", () => { this.#closeMenu(); onLabel(label); });
        menu.append(button);
      });
    } else {
      const button = make("button", "marks-menu-open", _("mark it in the source text"));
      button.type = "button";
      button.addEventListener("click", () => { this.#closeMenu(); onMark(); });
      menu.append(button);
    }
    // The selection stays while a button is pressed.
    menu.addEventListener("pointerdown", (event) => event.preventDefault());
    menu.addEventListener("mousedown", (event) => event.preventDefault());
    this.#card.append(menu);
    this.#menu = menu;
    withMenu = this;
    const rects = range.getClientRects();
    const rect = rects[rects.length - 1] ?? range.getBoundingClientRect();
    const card = this.#card.getBoundingClientRect();
    const own = menu.getBoundingClientRect();
    const left = Math.max(4, Math.min(rect.left - card.left, card.width - own.width - 4));
    menu.style.setProperty("left", `${left}px`);
    menu.style.setProperty("top", `${rect.bottom - card.top + 6}px`);
  }

  #closeMenu() {
    this.#menu?.remove();
    this.#menu = null;
    if (withMenu === this) withMenu = null;
  }

  closeMenu() { this.#closeMenu(); }

  holds(element) { return this.#holds(element); }

  #clicked(event) {
    if (!getSelection().isCollapsed) return;
    const { anchorNode, anchorOffset } = getSelection();
    const place = anchorNode && this.#view.placeOf(anchorNode, anchorOffset);
    if (place === null || event.detail > 1) return;
    const stop = this.words.at(Math.max(0, place - 1));
    const here = stop && stop[1] >= place ? stop : this.words.at(place);
    if (here) this.#select(...here);
  }

  // --- what is seen ---------------------------------------------------------------------------------
  #boxWith(height) {
    const box = make("div", "marks-box");
    box.dataset.marksBox = "";
    const text = make("div", "marks-text");
    text.dataset.marksText = "";
    if (this.#text.hasAttribute("data-blurred")) text.dataset.blurred = "";
    text.tabIndex = 0;
    text.setAttribute("role", "application");
    text.setAttribute("aria-label", fill(_("Source text of completion %(key)s"), { key: this.key }));
    text.style.setProperty("--height", `${Math.round(height)}px`);
    text.addEventListener("click", (event) => this.#clicked(event));
    box.append(text, this.#legend(), keysLine());
    box.addEventListener("focusout", (event) => this.#left(event));
    return box;
  }

  /** Marking lasts while the focus is with the text or its list. */
  #left({ relatedTarget }) {
    if (this.isOn && relatedTarget && !this.#holds(relatedTarget)) this.end({ focus: false });
  }

  #legend() {
    const legend = make("div", "marks-legend");
    legend.dataset.marksLegend = "";
    legend.setAttribute("role", "toolbar");
    legend.setAttribute("aria-label", _("Labels"));
    const from = this.#page * PAGE;
    this.#labels.slice(from, from + PAGE).forEach((label, index) => {
      const button = this.#labelButton(label, from + index, { withDigit: true });
      button.tabIndex = -1;
      button.addEventListener("click", () => this.toggle(from + index + 1));
      legend.append(button);
    });
    if (this.#labels.length > PAGE) {
      const more = make("button", "mark-label", _("more"));
      more.prepend(make("kbd", "", "0"), " ");
      more.type = "button";
      more.tabIndex = -1;
      more.addEventListener("click", () => this.#turnPage());
      legend.append(more);
    }
    const done = make("button", "marks-done", _("done"));
    done.append(" ", make("kbd", "", "Esc"));
    done.type = "button";
    done.tabIndex = -1;
    done.addEventListener("click", () => this.end());
    legend.append(done);
    legend.addEventListener("pointerdown", (event) => event.preventDefault());
    legend.addEventListener("mousedown", (event) => event.preventDefault());
    return legend;
  }

  #labelButton(label, index, { withDigit }) {
    const button = make("button", `mark-label mark-style-${this.#styleOf(label)}`);
    button.type = "button";
    button.dataset.label = index;
    if (withDigit) button.append(make("kbd", "", String((index % PAGE) + 1)), " ");
    button.append(make("span", "mark-name", label));
    return button;
  }

  #styleOf(label) { return Math.max(0, this.#labels.indexOf(label)) % STYLES; }

  #draw() {
    this.#drawList();
    if (this.isOn) this.#drawView();
    else highlight(this.#text, () => this.#marks.map((mark) => this.#quoteOf(mark)));
    this.#card.classList.toggle("has-marks", this.#marks.length > 0);
  }

  #drawView() {
    this.#view.draw(this.#marks.map((mark) => this.#drawn(mark)));
    this.#view.setCurrent(this.#mark && this.#drawn(this.#mark));
    if (!this.#at) return;
    const range = this.#view.rangeOf(this.#at.from, this.#at.to);
    getSelection().setBaseAndExtent(range.startContainer, range.startOffset, range.endContainer, range.endOffset);
  }

  #drawn({ start, end, label }) { return { start, end, style: this.#styleOf(label), tag: this.#tags.get(label) ?? "?" }; }

  /** What to look for in the rendered text: the quote, which of its occurrences it is, and of how many. */
  #quoteOf({ start, end, label }) {
    const quote = this.#source.slice(start, end);
    const found = this.#fold(false).find(quote, { most: 50 });
    return { quote, style: this.#styleOf(label), ordinal: found.findIndex(([from]) => from === start), count: found.length };
  }

  #drawList() {
    this.#list.replaceChildren(...this.#marks.map((mark) => this.#item(mark)));
    this.#list.hidden = this.#marks.length === 0;
  }

  #item(mark) {
    const item = make("li", `mark-item mark-style-${this.#styleOf(mark.label)}`);
    item.classList.toggle("is-current", this.isOn && mark === this.#mark);
    const show = make("button", "mark-show");
    show.type = "button";
    const quote = make("q", "mark-quote", shortened(this.#source.slice(mark.start, mark.end)));
    quote.dir = "auto";
    show.append(make("b", "mark-tag", this.#tags.get(mark.label) ?? "?"), " ", make("span", "mark-name", mark.label), " ", quote);
    show.addEventListener("click", () => this.#find(mark));
    item.append(show);
    if (mark === this.#editing) item.append(this.#editor(mark));
    else {
      if (mark.comment) {
        const comment = make("span", "mark-comment", mark.comment);
        comment.dir = "auto";
        item.append(comment);
      }
      const edit = this.#itemButton(mark.comment ? _("edit comment") : _("comment"), mark, () => this.#edit(mark));
      const remove = this.#itemButton(_("remove"), mark, () => { this.#remove(mark); this.#focusAfterList(); });
      const tools = make("span", "mark-tools");
      tools.append(edit, remove);
      item.append(tools);
    }
    return item;
  }

  #itemButton(words, mark, run) {
    const button = make("button", "mark-tool", words);
    button.type = "button";
    button.setAttribute("aria-label", `${words}: ${this.#inWords(mark)}`);
    button.addEventListener("click", run);
    return button;
  }

  #edit(mark) {
    this.#editing = mark;
    this.#drawItem(mark);
    this.#list.querySelector("textarea").focus();
  }

  /** Only this one, so that a click on its way to another arrives. */
  #drawItem(mark) { this.#list.children[this.#marks.indexOf(mark)]?.replaceWith(this.#item(mark)); }

  #editor(mark) {
    const field = make("textarea", "mark-editor");
    const before = mark.comment;
    const opener = document.activeElement;
    field.rows = 1;
    field.maxLength = 2000;
    field.value = before;
    field.dir = "auto";
    field.placeholder = _("Why? Enter keeps it");
    field.setAttribute("aria-label", fill(_("Comment on %(mark)s"), { mark: this.#inWords(mark) }));
    const close = (back = true) => {
      if (this.#editing !== mark) return;
      this.#editing = null;
      this.#drawItem(mark);
      if (!back) return;
      if (this.isOn) this.#focusText();
      else if (opener?.isConnected) opener.focus();
      else this.#card.focus({ preventScroll: true });
      if (this.isOn) this.#select(mark.start, mark.end, { quiet: true, mark });
    };
    // Kept with every letter, so that nothing typed is lost; Escape puts the old words back.
    field.addEventListener("input", () => { mark.comment = field.value; this.#write(); });
    field.addEventListener("blur", () => close(false));
    field.addEventListener("keydown", (event) => {
      if (event.isComposing || event.ctrlKey || event.metaKey) return;
      if (event.key === "Escape") { mark.comment = before; this.#write(); }
      else if (event.key !== "Enter" || event.shiftKey) return;
      event.preventDefault();
      event.stopPropagation();
      this.announce(event.key === "Enter" && mark.comment.trim() ? _("Comment kept") : _("Comment left as it was"));
      close();
    });
    return field;
  }

  #find(mark) {
    if (this.isOn) {
      this.#focusText();
      this.#show(mark);
      return;
    }
    const range = new Rendered(this.#text).rangeOf(this.#quoteOf(mark));
    if (!range || this.#text.classList.contains("is-clamped")) {
      this.begin([mark.start, mark.end]);
      return;
    }
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    range.startContainer.parentElement.scrollIntoView({ block: "nearest" });
    this.announce(this.#inWords(mark));
  }

  #showInList() {
    [...this.#list.children].forEach((item, index) => {
      const isCurrent = this.#marks[index] === this.#mark;
      if (isCurrent && !item.classList.contains("is-current")) this.#list.scrollTop = item.offsetTop - this.#list.offsetTop;
      item.classList.toggle("is-current", isCurrent);
    });
  }

  #focusAfterList() {
    if (this.isOn) this.#focusText();
    else (this.#list.querySelector(".mark-show") ?? this.#card.querySelector("[data-mark]")).focus();
  }

  #inWords({ start, end, label, comment }) {
    const quote = shortened(this.#source.slice(start, end));
    return comment ? `${label}: “${quote}”, ${shortened(comment)}` : `${label}: “${quote}”`;
  }
}

// --- small things -----------------------------------------------------------------------------------
const inOrder = (a, b) => a.start - b.start || a.end - b.end;
const isSameLine = (a, b) => Math.abs(a.top + a.height / 2 - b.top - b.height / 2) < Math.max(a.height, b.height) * 0.6;
const headerBottom = () => document.querySelector(".site-header")?.getBoundingClientRect().bottom ?? 0;

function make(name, className, words = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = words;
  return made;
}

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
    const letters = words.length > 1 ? words.slice(0, 3).map((word) => [...word][0]).join("") : [...words[0]].slice(0, 2).join("");
    let tag = letters.toUpperCase();
    for (let n = 2; taken.has(tag); n += 1) tag = `${letters.toUpperCase()}${n}`;
    taken.add(tag);
    tags.set(label, tag);
  }
  return tags;
}

function keysLine() {
  const line = make("p", "marks-keys");
  const keys = [
    ["← → ↑ ↓", _("move")], ["shift", _("extends")], ["[ ] − +", _("end by a letter")], ["{ }", _("start")], ["n p", _("next mark")],
    ["⏎", _("comment")], ["Del", _("remove")], ["u", _("undo")],
  ];
  for (const [key, words] of keys) {
    const part = make("span", "");
    for (const one of key.split(" ")) part.append(make("kbd", "", one));
    part.append(` ${words}`);
    line.append(part);
  }
  return line;
}

// --- one watch for all cards --------------------------------------------------------------------------
let isPressed = false;
let isByHand = false;
let timer = 0;

function look() {
  if (isPressed || !isByHand) return;
  const selection = getSelection();
  const range = selection.rangeCount && !selection.isCollapsed ? selection.getRangeAt(0) : null;
  const node = range?.commonAncestorContainer;
  const host = (node?.nodeType === Node.ELEMENT_NODE ? node : node?.parentElement)?.closest("[data-card-text], [data-marks-text]");
  const marks = host && cardOf.get(host);
  if (withMenu && withMenu !== marks) withMenu.closeMenu();
  marks?.settled(range, host);
}

function soon() {
  clearTimeout(timer);
  timer = setTimeout(look, 180);
}

document.addEventListener("selectionchange", () => {
  if (getSelection().isCollapsed && withMenu) withMenu.closeMenu();
  soon();
});
document.addEventListener("pointerdown", () => { isPressed = true; isByHand = true; }, true);
for (const name of ["pointerup", "pointercancel"]) document.addEventListener(name, () => { isPressed = false; soon(); }, true);
document.addEventListener("keydown", (event) => {
  isByHand = false;
  if (event.key !== "Escape" || !withMenu || withMenu.isOn) return;
  withMenu.closeMenu();
  event.stopImmediatePropagation();
}, true);
