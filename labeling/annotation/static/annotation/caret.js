// The caret of the marking view: it stops on words, and the browser's own selection shows it.
//
//   const caret = new Caret(view, words, source);
//   caret.put({ from, to, anchor, focus });      units; anchor and focus are stops of the caret, [start, end]
//   caret.goal("ArrowDown")                      the stop that a key leads to, or null
//   caret.extended(stop), caret.stretched("to", charAfter)       a new { from, to, ... } to put, or null
//   caret.reveal(bottom)                         scrolls until it is in sight

import { isRightToLeft } from "passages";

const PAGE_LINES = 10;
const isSameLine = (a, b) => Math.abs(a.top + a.height / 2 - b.top - b.height / 2) < Math.max(a.height, b.height) * 0.6;
const headerBottom = () => document.querySelector(".site-header")?.getBoundingClientRect().bottom ?? 0;

export class Caret {
  #view; #words; #source;
  #column = null; // where on a line it wants to be, in pixels

  constructor(view, words, source) {
    this.#view = view;
    this.#words = words;
    this.#source = source;
    this.at = null;
  }

  put({ from, to, anchor = [from, to], focus = [from, to] }) {
    this.at = { from, to, anchor, focus };
    this.show();
  }

  /** Draws it again after the text was. */
  show() {
    if (!this.at) return;
    const range = this.#view.rangeOf(this.at.from, this.at.to);
    getSelection().setBaseAndExtent(range.startContainer, range.startOffset, range.endContainer, range.endOffset);
  }

  goal(key) {
    const stop = this.at.focus;
    if (!/Up|Down/.test(key)) this.#column = null;
    // In a line from right to left, the next word stands on the left.
    const forward = isRightToLeft(this.#source, stop[0]) ? "ArrowLeft" : "ArrowRight";
    switch (key) {
      case "ArrowLeft": case "ArrowRight": return this.#step(stop, key === forward ? 1 : -1);
      case "ArrowUp": return this.#lines(stop, -1);
      case "ArrowDown": return this.#lines(stop, 1);
      case "PageUp": return this.#lines(stop, -PAGE_LINES);
      case "PageDown": return this.#lines(stop, PAGE_LINES);
      case "Home": return this.#lineEnd(stop, -1);
      case "End": return this.#lineEnd(stop, 1);
      case "ctrl+Home": return this.#words.at(0);
      case "ctrl+End": return this.#words.before([this.#source.length]);
      default: return null;
    }
  }

  /** From where the selection began to this stop; back within what it began with, that alone. */
  extended(stop) {
    const { from, anchor, focus } = this.at;
    const isWithin = stop[0] >= anchor[0] && stop[1] <= anchor[1] && from < focus[1];
    const goal = isWithin ? anchor : stop;
    return { from: Math.min(anchor[0], goal[0]), to: Math.max(anchor[1], goal[1]), anchor, focus: goal };
  }

  /** One end moved by a character, for what is more or less than words. */
  stretched(end, step) {
    const { from, to } = this.at;
    const place = step(this.#source, end === "to" ? to : from);
    const next = end === "to" ? { from, to: place } : { from: place, to };
    return next.from < next.to ? next : null;
  }

  reveal(bottom) {
    const { element } = this.#view;
    const outer = element.getBoundingClientRect();
    let rect = this.#view.rectOf(this.at.focus);
    const room = Math.min(rect.height * 1.5, outer.height / 4);
    const above = outer.top + room - rect.top;
    const below = rect.bottom - (outer.bottom - room);
    if (above > 0) element.scrollTop -= above;
    else if (below > 0) element.scrollTop += below;
    if (above > 0 || below > 0) rect = this.#view.rectOf(this.at.focus);
    const top = headerBottom();
    if (rect.top < top + rect.height) scrollBy(0, rect.top - top - rect.height * 2);
    else if (rect.bottom > bottom - rect.height) scrollBy(0, rect.bottom - bottom + rect.height * 2);
  }

  #step(stop, by) { return by > 0 ? this.#words.after(stop) : this.#words.before(stop); }

  #lines(stop, by) {
    let at = stop;
    for (let n = 0; n < Math.abs(by); n += 1) at = this.#nextLine(at, Math.sign(by)) ?? at;
    return at === stop ? this.#lineEnd(stop, Math.sign(by)) : at;
  }

  /** The stop in the line below or above that is nearest to the column. */
  #nextLine(stop, by) {
    const here = this.#view.rectOf(stop);
    this.#column ??= here.left + here.width / 2;
    let best = null;
    let line = null;
    for (let at = this.#step(stop, by); at; at = this.#step(at, by)) {
      const rect = this.#view.rectOf(at);
      if (line === null && isSameLine(rect, here)) continue;
      line ??= rect;
      if (!isSameLine(rect, line)) break;
      const distance = Math.abs(rect.left + rect.width / 2 - this.#column);
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
}
