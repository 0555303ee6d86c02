// Where passages lie in a text. Pure: knows no page.
//
//   new CodePoints(text).toPoints(3)      JavaScript counts UTF-16 units; marks are stored in code points
//   new Words(text).after([4, 9])         the next place where the caret stops, [start, end] in units
//   new Folded(text).find("a  quote")     every place of a quote, whatever the white space: [[start, end], ...]
//
// Everything here counts in units; only CodePoints knows the other measure.

const WINDOW = 1000; // units that are cut into words at once
const LONGEST_STOP = 64;
const ATTACHED = /^[\p{P}\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e]+$/u;
const WORDS = /[\p{L}\p{N}_][\p{L}\p{N}\p{M}_'’]*|\s+|[^\s\p{L}\p{N}_]+/gu;
const RIGHT_TO_LEFT = /[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}]/u;
const MARKUP = new Set("*_`~#>|\\");

const segmenter = (granularity) => (Intl.Segmenter ? new Intl.Segmenter(undefined, { granularity }) : null);
const wordSegmenter = segmenter("word");
const charSegmenter = segmenter("grapheme");

const isHigh = (unit) => unit >= 0xd800 && unit <= 0xdbff;
const isLow = (unit) => unit >= 0xdc00 && unit <= 0xdfff;

/** How many numbers of a sorted list are below. */
function countBelow(sorted, number, of = (value) => value) {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (of(sorted[middle], middle) < number) low = middle + 1;
    else high = middle;
  }
  return low;
}

export class CodePoints {
  #pairs = []; // the code point at which each surrogate pair stands

  constructor(text) {
    if (!/[\ud800-\udbff]/.test(text)) return;
    for (let at = 0; at < text.length - 1; at++) {
      if (isHigh(text.charCodeAt(at)) && isLow(text.charCodeAt(at + 1))) this.#pairs.push(at++ - this.#pairs.length);
    }
  }

  /** Units to code points; the middle of a pair counts as its start. */
  toPoints(unit) { return unit - countBelow(this.#pairs, unit, (point, index) => point + index); }

  toUnits(point) { return point + countBelow(this.#pairs, point); }
}

/** Never within a surrogate pair, nor between the two halves of a Windows line end. */
export function snap(text, at) {
  const inPair = isHigh(text.charCodeAt(at - 1)) && isLow(text.charCodeAt(at));
  const inLineEnd = text[at - 1] === "\r" && text[at] === "\n";
  return inPair || inLineEnd ? at - 1 : at;
}

/** The end of the character (letter with its accents, whole emoji) that begins here. */
export function charAfter(text, at) {
  if (at >= text.length) return text.length;
  const ahead = text.slice(at, at + 64);
  if (!charSegmenter) return at + String.fromCodePoint(ahead.codePointAt(0)).length;
  return at + charSegmenter.segment(ahead)[Symbol.iterator]().next().value.segment.length;
}

/** The start of the character that ends here. */
export function charBefore(text, at) {
  if (at <= 0) return 0;
  if (!charSegmenter) return snap(text, at - 1);
  const from = snap(text, Math.max(0, at - 64));
  return from + charSegmenter.segment(text.slice(from, at)).containing(at - from - 1).index;
}

/** Whether the line at this place runs from right to left: its first letter says so. */
export function isRightToLeft(text, at) {
  const start = Math.max(text.lastIndexOf("\n", at - 1) + 1, at - 2000);
  const letter = /\p{L}/u.exec(text.slice(start, start + 2000));
  return letter !== null && RIGHT_TO_LEFT.test(letter[0]);
}

export class Words {
  #text;
  #starts = []; // windows, cut into words when the caret comes there
  #stops = new Map();

  constructor(text) {
    this.#text = text;
    for (let at = 0; at < text.length; at = this.#windowEnd(at)) this.#starts.push(at);
  }

  /** The stop that holds this place, else the next one, else the last. */
  at(place) {
    for (let window = this.#windowOf(place); window < this.#starts.length; window++) {
      const found = this.#stopsOf(window).find(([, end]) => end > place);
      if (found) return found;
    }
    return this.before([this.#text.length]);
  }

  after([, end]) {
    for (let window = this.#windowOf(end); window < this.#starts.length; window++) {
      const found = this.#stopsOf(window).find(([start]) => start >= end);
      if (found) return found;
    }
    return null;
  }

  before([start]) {
    for (let window = this.#windowOf(start); window >= 0; window--) {
      const found = this.#stopsOf(window).findLast(([, end]) => end <= start);
      if (found) return found;
    }
    return null;
  }

  #windowOf(place) { return Math.max(0, countBelow(this.#starts, place + 1) - 1); }

  #windowEnd(start) {
    const text = this.#text;
    const end = start + WINDOW;
    if (end >= text.length) return text.length;
    const newline = text.indexOf("\n", end);
    if (newline >= 0 && newline < end + WINDOW) return newline + 1;
    const space = text.slice(end, end + WINDOW).search(/\s/);
    return space >= 0 ? end + space + 1 : charBefore(text, end + 1);
  }

  #stopsOf(window) {
    if (!this.#stops.has(window)) {
      const start = this.#starts[window];
      const end = this.#starts[window + 1] ?? this.#text.length;
      this.#stops.set(window, this.#cut(start, this.#text.slice(start, end)));
    }
    return this.#stops.get(window);
  }

  /** Words, and signs that stand alone: a comma after a word is passed over, a dash or an emoji is not. */
  #cut(start, text) {
    const runs = []; // [start, end, kind]
    for (const [at, segment, isWord] of segments(text)) {
      const kind = isWord ? "word" : /^\s+$/.test(segment) ? "space" : ATTACHED.test(segment) ? "sign" : "symbol";
      const last = runs.at(-1);
      if (kind === last?.[2] && kind !== "word") last[1] += segment.length;
      else runs.push([at, at + segment.length, kind]);
    }
    const stops = [];
    runs.forEach(([from, to, kind], index) => {
      if (kind === "space") return;
      const word = text.slice(from, to);
      const touches = [runs[index - 1], runs[index + 1]].some((run) => run && run[2] !== "space");
      if (kind === "sign" && touches) return;
      const first = from + word.length - word.trimStart().length;
      const last = from + word.trimEnd().length;
      for (let at = first; at < last;) {
        const end = last - at > LONGEST_STOP ? Math.max(charBefore(text, at + LONGEST_STOP), charAfter(text, at)) : last;
        stops.push([start + at, start + end]);
        at = end;
      }
    });
    return stops;
  }
}

function* segments(text) {
  if (wordSegmenter) {
    for (const { index, segment, isWordLike } of wordSegmenter.segment(text)) yield [index, segment, isWordLike];
  } else {
    for (const found of text.matchAll(WORDS)) yield [found.index, found[0], /^[\p{L}\p{N}_]/u.test(found[0])];
  }
}

/** A text with every run of white space as one space, that knows where each character came from. */
export class Folded {
  #from;

  constructor(text, { withoutMarkup = false } = {}) {
    this.#from = new Uint32Array(text.length + 1);
    const kept = [];
    let inSpace = true;
    for (let at = 0; at < text.length; at++) {
      const char = text[at];
      if (withoutMarkup && MARKUP.has(char)) continue;
      const isSpace = char <= " " ? char.trim() === "" : char > "~" && char.trim() === "";
      if (isSpace && inSpace) continue;
      inSpace = isSpace;
      this.#from[kept.length] = at;
      kept.push(isSpace ? " " : char);
    }
    this.text = kept.join("");
    this.withoutMarkup = withoutMarkup;
  }

  /** Every place of the quote, as [start, end] in the text that was given. */
  find(quote, { most = 1000 } = {}) {
    const wanted = new Folded(quote, this).text.trim();
    const found = [];
    if (!wanted) return found;
    for (let at = this.text.indexOf(wanted); at >= 0 && found.length < most; at = this.text.indexOf(wanted, at + 1)) {
      found.push([this.#from[at], this.#from[at + wanted.length - 1] + 1]);
    }
    return found;
  }
}
