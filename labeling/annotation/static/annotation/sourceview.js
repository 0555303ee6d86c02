// The source text of a completion on the page, with marks in it, so that every place on the page is a place in the text.
//
//   const view = new SourceView(element, text);     fills the element; text only, nothing in it is markup
//   view.draw([{ start, end, style: 0, tag: "WF" }]);
//   view.rangeOf(4, 9)                              the DOM range of these units
//   view.placeOf(node, offset)                      and back: units from the start, null outside
//
// The text stands in blocks of whole lines, which the browser lays out once they come into sight. Invisible characters
// stand there as their names, and still count as what they are. Where marks overlap, each has its own underline.

import { nameTag, pieces } from "invisible";

const BLOCK = 1500;
const MOST_NAMES = 300; // in a block
const LANES = 3;
const LINE_ENDS = /\r\n?|\n/g;

export class SourceView {
  #text;
  #hasWindowsLines;
  #blocks = []; // { start, end, element, segments: [{ start, end, node }], drawn }
  #segmentOf = new WeakMap();
  #spansOf = new Map();

  constructor(element, text) {
    this.element = element;
    this.#text = text;
    this.#hasWindowsLines = text.includes("\r\n");
    for (let start = 0; start < text.length;) {
      const end = lineEnd(text, Math.min(start + BLOCK, text.length));
      const block = { start, end, element: document.createElement("div"), segments: [], drawn: null };
      block.element.className = "source-block";
      block.element.dir = "auto";
      const lines = text.slice(start, end).split("\n");
      const rows = lines.reduce((sum, line) => sum + 1 + Math.floor(line.length / 70), 0);
      block.element.style.setProperty("contain-intrinsic-size", `auto ${rows * 1.85}em`);
      this.#blocks.push(block);
      start = end;
    }
    this.draw([]);
    element.replaceChildren(...this.#blocks.map((block) => block.element));
  }

  /** Draws the marks; blocks where nothing is different stay as they are. */
  draw(marks) {
    const laned = inLanes(marks);
    for (const block of this.#blocks) {
      const within = laned.filter(({ mark }) => mark.start < block.end && mark.end > block.start);
      const drawn = within.map(({ mark, lane }) => `${mark.start} ${mark.end} ${mark.tag} ${mark.style} ${lane}`).join();
      if (drawn !== block.drawn) this.#drawBlock(block, within);
      block.drawn = drawn;
    }
    this.#spansOf.clear();
    for (const span of this.element.querySelectorAll("[data-span]")) {
      const spans = this.#spansOf.get(span.dataset.span) ?? [];
      this.#spansOf.set(span.dataset.span, [...spans, span]);
    }
  }

  /** Shows which mark the caret is in. */
  setCurrent(mark) {
    for (const span of this.element.querySelectorAll(".source-mark.is-current")) span.classList.remove("is-current");
    for (const span of (mark && this.#spansOf.get(spanKey(mark))) ?? []) span.classList.add("is-current");
  }

  rangeOf(start, end) {
    const range = document.createRange();
    if (!this.#blocks.length) {
      range.selectNodeContents(this.element);
      return range;
    }
    range.setStart(...this.#pointOf(start, false));
    range.setEnd(...this.#pointOf(Math.max(start, end), end > start));
    return range;
  }

  rectOf([start, end]) {
    const range = this.rangeOf(start, end);
    return range.getClientRects()[0] ?? range.getBoundingClientRect();
  }

  placeOf(node, offset) {
    if (!this.element.contains(node)) return null;
    const known = this.#segmentOf.get(node);
    if (known && node.nodeType === Node.TEXT_NODE) return known.start + Math.min(offset, known.end - known.start);
    const tag = (node.nodeType === Node.TEXT_NODE ? node.parentElement : node).closest(".invisible-char");
    if (tag) return offset === 0 ? this.#segmentOf.get(tag).start : this.#segmentOf.get(tag).end;
    const next = node.childNodes[offset];
    if (next) return this.#firstIn(next)?.start ?? 0;
    return this.#lastIn(node)?.end ?? this.#text.length;
  }

  #firstIn(node) {
    while (node && !this.#segmentOf.has(node)) node = node.firstChild;
    return node && this.#segmentOf.get(node);
  }

  #lastIn(node) {
    while (node && !this.#segmentOf.has(node)) node = node.lastChild;
    return node && this.#segmentOf.get(node);
  }

  #pointOf(place, isEnd) {
    const look = isEnd ? place - 1 : place;
    const block = this.#blocks[Math.max(0, lastAtMost(this.#blocks, look))];
    let index = Math.max(0, lastAtMost(block.segments, look));
    let segment = block.segments[index];
    // The first half of a Windows line end is not on the page.
    while (!segment.node && block.segments[index + (isEnd ? -1 : 1)]) segment = block.segments[(index += isEnd ? -1 : 1)];
    if (!segment.node) return [block.element, isEnd ? 0 : block.element.childNodes.length];
    const { node, start, end } = segment;
    if (node.nodeType === Node.TEXT_NODE) return [node, Math.max(0, Math.min(place, end) - start)];
    const child = [...node.parentNode.childNodes].indexOf(node);
    return [node.parentNode, child + (isEnd || place >= end ? 1 : 0)];
  }

  #drawBlock(block, within) {
    const cuts = new Set([block.start, block.end]);
    for (const { mark } of within) {
      if (mark.start > block.start) cuts.add(mark.start);
      if (mark.end < block.end) cuts.add(mark.end);
    }
    const places = [...cuts].sort((a, b) => a - b);
    const content = document.createDocumentFragment();
    block.segments = [];
    for (let index = 0; index + 1 < places.length; index += 1) {
      const [start, end] = [places[index], places[index + 1]];
      let parent = content;
      const here = within.filter(({ mark }) => mark.start <= start && mark.end >= end);
      here.forEach(({ mark, lane }) => {
        const span = document.createElement("span");
        span.className = `source-mark mark-style-${mark.style} mark-lane-${lane}`;
        span.dataset.span = spanKey(mark);
        const begin = here.filter((one) => one.mark.start === start);
        if (begin[0]?.mark === mark) span.dataset.tag = begin.map((one) => one.mark.tag).join(" ");
        parent.append(span);
        parent = span;
      });
      this.#write(block, parent, start, end);
    }
    block.element.replaceChildren(content);
  }

  #write(block, parent, start, end) {
    const add = (node, from, to) => {
      const segment = { start: from, end: to, node };
      block.segments.push(segment);
      if (!node) return;
      this.#segmentOf.set(node, segment);
      parent.append(node);
    };
    let at = start;
    for (const piece of pieces(this.#text.slice(start, end), { most: MOST_NAMES })) {
      const last = at + piece.text.length;
      const shown = piece.shown ?? piece.text;
      const write = (from, to) => { if (to > from) add(document.createTextNode(shown.slice(from - at, to - at).replaceAll("\r", "\n")), from, to); };
      if (piece.name) add(nameTag(piece), at, last);
      else {
        let from = at;
        for (let place = this.#lineEndAfter(at); place >= 0 && place < last; place = this.#lineEndAfter(place + 1)) {
          write(from, place);
          add(null, place, place + 1);
          from = place + 1;
        }
        write(from, last);
      }
      at = last;
    }
  }

  #lineEndAfter(at) { return this.#hasWindowsLines ? this.#text.indexOf("\r\n", at) : -1; }
}

const spanKey = ({ start, end, style }) => `${start} ${end} ${style}`;

function lineEnd(text, at) {
  if (at >= text.length) return text.length;
  LINE_ENDS.lastIndex = at - 1;
  const found = LINE_ENDS.exec(text);
  return found ? found.index + found[0].length : text.length;
}

/** The last of these (sorted by start) that begins at this place or before. */
function lastAtMost(sorted, place) {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle].start <= place) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** Marks that overlap get underlines at different heights. */
function inLanes(marks) {
  const ends = [];
  return [...marks].sort((a, b) => a.start - b.start || b.end - a.end).map((mark) => {
    let lane = ends.findIndex((end) => end <= mark.start);
    if (lane < 0) lane = ends.length;
    ends[lane] = mark.end;
    return { mark, lane: lane % LANES };
  });
}
