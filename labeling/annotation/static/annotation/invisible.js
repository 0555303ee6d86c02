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

/**
 * The text in pieces: plain ones, and invisible characters one by one, each with its name (a long run of one, together).
 * Past `most` names the rest is one plain piece, whose `shown` has a sign in the place of each.
 */
export function* pieces(text, { most = MOST_NAMES } = {}) {
  if (!hasInvisible(text)) {
    if (text) yield { text, name: "", title: "" };
    return;
  }
  let names = 0;
  let at = 0;
  let run = null; // the same character over and over
  const named = ({ char, count, isStack }) => {
    const code = char.codePointAt(0);
    if (isStack) return [{ text: char, name: `+${char.length}`, title: hex(code) }];
    const one = { text: char, name: shortOf(code), title: hex(code) };
    return count > LONG_RUN ? [{ ...one, text: char.repeat(count), name: `${one.name} × ${count}` }] : Array(count).fill(one);
  };
  for (const found of text.matchAll(FOUND)) {
    const [char] = found;
    if (run && run.char === char && at === found.index) run.count += 1;
    else {
      if (run) {
        const tags = named(run);
        names += tags.length;
        yield* tags;
        run = null;
      }
      if (at < found.index) yield { text: text.slice(at, found.index), name: "", title: "" };
      at = found.index;
      if (names >= most) break;
      run = { char, count: 1, isStack: found.groups.stacked !== undefined };
    }
    at = found.index + char.length;
  }
  if (run) yield* named(run);
  if (at === text.length) return;
  const rest = text.slice(at);
  yield { text: rest, name: "", title: "", shown: rest.replace(FOUND, (char) => "·".repeat(char.length)) };
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

/** "RLO, ZWSP × 3", or nothing. */
export function namesIn(text, { most = 6 } = {}) {
  if (!hasInvisible(text)) return "";
  const counts = new Map();
  for (const found of text.matchAll(FOUND)) {
    const name = shortOf(found[0].codePointAt(0));
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  const names = [...counts].map(([name, count]) => (count > 1 ? `${name} × ${count}` : name));
  return names.length > most ? `${names.slice(0, most).join(", ")}, …` : names.join(", ");
}
