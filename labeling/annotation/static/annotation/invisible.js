// Characters that show nothing or turn the text around, as names. The same ones as labeling/web/markdown/invisible.py.
//
//   for (const { text, name, title } of pieces("a\u202eb"))      "a", then RLO (name is empty for plain text), then "b"
//   nameTag(piece)                                               <span class="invisible-char" title="U+202E">RLO</span>
//
// The texts of all pieces, joined, are the text: nothing is left out, so places in it can be counted.

const CHARS = "\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180e\\u200b\\u200e\\u200f\\u2028-\\u202e"
  + "\\u2060-\\u206f\\u3164\\ufe00-\\ufe0e\\ufeff\\uffa0\\ufff9-\\ufffb\\ud800-\\udfff\\u{e0000}-\\u{e0fff}\\u{10e000}-\\u{10fffd}";
// Joiners stay where they belong: inside emoji and in Indic or Persian words.
const INVISIBLE = `[${CHARS}]|(?<![^\\s\\x21-\\x7e])[\\u200c\\u200d]|[\\u200c\\u200d](?![^\\s\\x21-\\x7e])`;
const STACK = "\\u0300-\\u036f\\u0483-\\u0489\\u1ab0-\\u1aff\\u1dc0-\\u1dff\\u20d0-\\u20ff\\ufe20-\\ufe2f";
const FOUND = new RegExp(`(?<stacked>(?<=[${STACK}]{5})[${STACK}]+)|(?<run>${INVISIBLE})`, "gu");
const ANY = new RegExp(`[${CHARS}\\u200c\\u200d]|[${STACK}]{6}`, "u");
const LONG_RUN = 8; // of the same character: one name and a number
const MOST_NAMES = 4000;

const SHORT = {
  0x00: "NUL", 0x07: "BEL", 0x08: "BS", 0x0b: "VT", 0x0c: "FF", 0x0e: "SO", 0x0f: "SI", 0x1a: "SUB", 0x1b: "ESC", 0x7f: "DEL",
  0x85: "NEL", 0xad: "SHY", 0x34f: "CGJ", 0x61c: "ALM", 0x200b: "ZWSP", 0x200c: "ZWNJ", 0x200d: "ZWJ", 0x200e: "LRM",
  0x200f: "RLM", 0x2028: "LS", 0x2029: "PS", 0x202a: "LRE", 0x202b: "RLE", 0x202c: "PDF", 0x202d: "LRO", 0x202e: "RLO",
  0x2060: "WJ", 0x2066: "LRI", 0x2067: "RLI", 0x2068: "FSI", 0x2069: "PDI", 0xfeff: "BOM",
};

const hex = (code) => `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
const shortOf = (code) => SHORT[code] ?? (code >= 0xe0000 && code <= 0xe007f ? "TAG" : hex(code));

export const hasInvisible = (text) => ANY.test(text);

/** The text in pieces: plain ones, and invisible characters one by one, each with its name. */
export function* pieces(text, { most = MOST_NAMES } = {}) {
  if (!hasInvisible(text)) {
    if (text) yield { text, name: "", title: "" };
    return;
  }
  let shown = 0;
  let waiting = null; // a long run of one character, gathered
  let plainFrom = 0;
  const flush = function* flush(upTo) {
    if (waiting) {
      const { code, char, count } = waiting;
      waiting = null;
      if (count > LONG_RUN) yield { text: char.repeat(count), name: `${shortOf(code)} × ${count}`, title: hex(code) };
      else for (let n = 0; n < count; n++) yield { text: char, name: shortOf(code), title: hex(code) };
    }
    if (plainFrom < upTo) yield { text: text.slice(plainFrom, upTo), name: "", title: "" };
  };
  for (const found of text.matchAll(FOUND)) {
    const [whole] = found;
    const code = whole.codePointAt(0);
    if (waiting && waiting.char === whole && plainFrom === found.index) waiting.count += 1;
    else {
      yield* flush(found.index);
      if (shown >= most) {
        // Too many to name each: a sign stands in, unit for unit.
        yield { text: whole, name: "", title: "", shown: "\ufffd".repeat(whole.length) };
      } else if (found.groups.stacked) yield { text: whole, name: `+${whole.length}`, title: hex(code) };
      else waiting = { code, char: whole, count: 1 };
      shown += 1;
    }
    plainFrom = found.index + whole.length;
  }
  yield* flush(text.length);
}

export function nameTag({ name, title }) {
  const tag = document.createElement("span");
  tag.className = "invisible-char";
  tag.title = title;
  tag.textContent = name;
  return tag;
}

/** Appends the text, invisible characters named. */
export function appendShown(parent, text) {
  for (const piece of pieces(text)) parent.append(piece.name ? nameTag(piece) : piece.shown ?? piece.text);
}
