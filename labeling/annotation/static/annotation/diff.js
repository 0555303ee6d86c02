// The difference of two texts in words. Pure: knows no page.
//
//   wordDiff("a b", "a c")     [{ kind: "same", text: "a " }, { kind: "removed", text: "b" }, { kind: "added", text: "c" }]
//   countWords("two words")    2
//
// "same" and "removed" joined are the first text, "same" and "added" the second, to the letter.
//
// What both texts begin and end with is set aside first. The rest is cut into words, white space and signs, and compared
// by Myers' O(ND) algorithm (Algorithmica 1, 1986). Where that would cost too much, phrases that occur once in either
// text hold the two together, as in a patience diff, and what lies between them is compared.

const TOKENS = new RegExp(
  [
    "\\n",
    "[^\\S\\n]+",
    "[\\p{L}\\p{N}_][\\p{L}\\p{N}\\p{M}_\\u200c\\u200d]*(?:['’][\\p{L}\\p{N}\\p{M}_]+)*",
    "\\p{RI}\\p{RI}",
    "\\p{Extended_Pictographic}(?:[\\ufe0f\\p{EMod}]|\\u200d\\p{Extended_Pictographic})*",
    "[^]\\p{M}*",
  ].join("|"),
  "gu",
);
// Scripts that put no space between words.
const UNSPACED = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}]/u;
const segmenter = Intl.Segmenter ? new Intl.Segmenter(undefined, { granularity: "word" }) : null;

const MOST_EDITS = 900; // of one comparison; its cost grows with the square
const BUDGET = 3_000_000; // steps of all comparisons together
const LOOK_BACK = 200; // how far a cut may move to find white space
const PHRASES = [12, 4, 1]; // tokens of a phrase that holds two texts together
const FARTHEST_SLIDE = 40; // tokens
const LONGEST_UNSPACED = 200; // beyond, characters are compared: the segmenter's time grows with the square

export function wordDiff(before, after) {
  const [head, tail] = shared(before, after);
  const parts = [];
  const add = (kind, text) => {
    if (!text) return;
    const last = parts.at(-1);
    if (last?.kind === kind) last.text += text;
    else parts.push({ kind, text });
  };
  add("same", before.slice(0, head));
  for (const { kind, text } of compared(before.slice(head, before.length - tail), after.slice(head, after.length - tail))) add(kind, text);
  add("same", before.slice(before.length - tail));
  return parts;
}

/** Words as a reader counts them. */
export function countWords(text) {
  let count = 0;
  for (const [run] of text.matchAll(/\S{1,200}/gu)) {
    if (segmenter && UNSPACED.test(run)) {
      // In short pieces: each segment carries a copy of the whole text it was cut from.
      for (const { isWordLike } of segmenter.segment(run)) if (isWordLike) count += 1;
    } else if (/[\p{L}\p{N}]/u.test(run)) count += 1;
  }
  return count;
}

/** How long the beginning and the end are that both texts share, cut where words end. */
function shared(before, after) {
  const most = Math.min(before.length, after.length);
  let head = 0;
  while (head < most && before.charCodeAt(head) === after.charCodeAt(head)) head += 1;
  if (head < before.length || head < after.length) head = cutBack(before, after, head);
  let tail = 0;
  while (tail < most - head && before.charCodeAt(before.length - 1 - tail) === after.charCodeAt(after.length - 1 - tail)) tail += 1;
  return [head, tailCut(before, tail)];
}

/** Back to the nearest place after white space, or at least to one between two characters. */
function cutBack(before, after, head) {
  for (let at = head; at > 0 && at > head - LOOK_BACK; at -= 1) {
    if (isSpace(before[at - 1]) && (at < head || breaks(before, at) && breaks(after, at))) return at;
  }
  if (head < LOOK_BACK) return 0;
  let at = head - 1;
  while (at > 0 && !breaks(before, at)) at -= 1;
  return at;
}

function tailCut(text, tail) {
  const start = text.length - tail;
  for (let at = start; at < text.length && at < start + LOOK_BACK; at += 1) {
    if (isSpace(text[at])) return text.length - at;
  }
  if (tail < LOOK_BACK) return 0;
  let at = start + 1;
  while (at < text.length && !breaks(text, at)) at += 1;
  return text.length - at;
}

const isSpace = (char) => char === " " || char === "\n" || char === "\t";
/** Whether a character may begin here: no half of a pair, no accent, nothing joined to what precedes. */
const breaks = (text, at) => !/^[\udc00-\udfff\u200d\ufe0f\p{M}\p{EMod}]/u.test(text.slice(at, at + 2)) && !/[\u200d\ud800-\udbff]$/.test(text[at - 1] ?? "");

function tokensOf(text) {
  const tokens = [];
  for (const [token] of text.matchAll(TOKENS)) {
    if (token.length > 1 && UNSPACED.test(token)) {
      if (segmenter && token.length <= LONGEST_UNSPACED) for (const { segment } of segmenter.segment(token)) tokens.push(segment);
      else tokens.push(...token);
    } else tokens.push(token);
  }
  return tokens;
}

function compared(before, after) {
  const a = tokensOf(before);
  const b = tokensOf(after);
  const numbers = new Map();
  const number = (token) => {
    const known = numbers.get(token);
    if (known !== undefined) return known;
    numbers.set(token, numbers.size);
    return numbers.size - 1;
  };
  const aNumbers = Int32Array.from(a, number);
  const bNumbers = Int32Array.from(b, number);
  const same = new Int32Array(a.length).fill(-1); // for each token of a, the token of b it is
  match({ a: aNumbers, b: bNumbers, same, left: BUDGET }, 0, a.length, 0, b.length);
  return tidied(groups(a, b, same));
}

// --- which tokens are the same ---------------------------------------------------------------------
function match(work, aFrom, aTo, bFrom, bTo) {
  const { a, b, same } = work;
  while (aFrom < aTo && bFrom < bTo && a[aFrom] === b[bFrom]) same[aFrom++] = bFrom++;
  while (aFrom < aTo && bFrom < bTo && a[aTo - 1] === b[bTo - 1]) same[--aTo] = --bTo;
  if (aFrom === aTo || bFrom === bTo) return;
  if (shortest(work, aFrom, aTo, bFrom, bTo)) return;
  const anchors = anchorsOf(a, b, aFrom, aTo, bFrom, bTo);
  if (!anchors.length) return;
  // Each piece between two anchors is smaller, and anchors are used up: this ends.
  let [aAt, bAt] = [aFrom, bFrom];
  for (const [aPlace, bPlace] of anchors) {
    if (aPlace < aAt || bPlace < bAt) continue;
    match(work, aAt, aPlace, bAt, bPlace);
    [aAt, bAt] = [aPlace, bPlace];
    while (aAt < aTo && bAt < bTo && a[aAt] === b[bAt]) same[aAt++] = bAt++;
  }
  match(work, aAt, aTo, bAt, bTo);
}

/** Myers' shortest edit script. False if it takes more than MOST_EDITS edits or the budget is used up. */
function shortest(work, aFrom, aTo, bFrom, bTo) {
  const { a, b, same } = work;
  const n = aTo - aFrom;
  const m = bTo - bFrom;
  const most = Math.min(n + m, MOST_EDITS);
  if (Math.abs(n - m) > most) return false;
  const offset = most + 1;
  const furthest = new Int32Array(2 * most + 3);
  const trace = [];
  for (let edits = 0; edits <= most; edits += 1) {
    trace.push(furthest.slice(offset - edits - 1, offset + edits + 2));
    for (let k = -edits; k <= edits; k += 2) {
      const goesDown = k === -edits || (k !== edits && furthest[offset + k - 1] < furthest[offset + k + 1]);
      let x = goesDown ? furthest[offset + k + 1] : furthest[offset + k - 1] + 1;
      let y = x - k;
      const began = x;
      while (x < n && y < m && a[aFrom + x] === b[bFrom + y]) { x += 1; y += 1; }
      work.left -= 1 + x - began;
      furthest[offset + k] = x;
      if (x >= n && y >= m) {
        walkBack(trace, n, m, edits, (atX, atY) => { same[aFrom + atX] = bFrom + atY; });
        return true;
      }
    }
    if (work.left < 0) return false;
  }
  return false;
}

function walkBack(trace, n, m, edits, onSame) {
  let [x, y] = [n, m];
  for (let step = edits; step >= 0; step -= 1) {
    const furthest = trace[step];
    const at = (diagonal) => furthest[diagonal + step + 1];
    const k = x - y;
    const wentDown = k === -step || (k !== step && at(k - 1) < at(k + 1));
    const cameX = step === 0 ? 0 : wentDown ? at(k + 1) : at(k - 1);
    const cameY = step === 0 ? 0 : cameX - (wentDown ? k + 1 : k - 1);
    const stopX = step === 0 ? 0 : wentDown ? cameX : cameX + 1;
    while (x > stopX && y > (step === 0 ? 0 : stopX - k)) onSame(--x, --y);
    [x, y] = [cameX, cameY];
  }
}

/** Phrases that occur once in either text, as many as keep their order: [[place in a, place in b], ...]. */
function anchorsOf(a, b, aFrom, aTo, bFrom, bTo) {
  for (const length of PHRASES) {
    const pairs = oncePairs(a, b, aFrom, aTo - length + 1, bFrom, bTo - length + 1, length);
    if (pairs.length) return inOrder(pairs);
  }
  return [];
}

function oncePairs(a, b, aFrom, aTo, bFrom, bTo, length) {
  const placesOf = (list, from, to) => {
    const places = new Map();
    for (let at = from; at < to; at += 1) {
      let hash = 0;
      for (let ahead = 0; ahead < length; ahead += 1) hash = (Math.imul(hash, 0x9e3779b1) + list[at + ahead] + 1) | 0;
      places.set(hash, places.has(hash) ? -1 : at);
    }
    return places;
  };
  const isSame = (place, other) => {
    for (let ahead = 0; ahead < length; ahead += 1) if (a[place + ahead] !== b[other + ahead]) return false;
    return true;
  };
  const inB = placesOf(b, bFrom, bTo);
  const pairs = [];
  for (const [hash, place] of placesOf(a, aFrom, aTo)) {
    const other = inB.get(hash);
    if (place >= 0 && other >= 0 && isSame(place, other)) pairs.push([place, other]);
  }
  return pairs;
}

/** The most pairs that stand in the same order in both texts, by patience sorting. */
function inOrder(pairs) {
  pairs.sort((one, two) => one[0] - two[0]);
  const tops = [];
  const previous = new Array(pairs.length);
  pairs.forEach(([, place], index) => {
    let low = 0;
    let high = tops.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (pairs[tops[middle]][1] < place) low = middle + 1;
      else high = middle;
    }
    previous[index] = low ? tops[low - 1] : -1;
    tops[low] = index;
  });
  const run = [];
  for (let index = tops.at(-1) ?? -1; index >= 0; index = previous[index]) run.push(pairs[index]);
  return run.reverse();
}

// --- from tokens to parts ---------------------------------------------------------------------------
/** [{ same }, { removed, added }, ...] in turn. */
function groups(a, b, same) {
  const edits = editsOf(a, b, same);
  for (let index = 0; index < edits.length; index += 1) slide(a, b, edits, index);
  const found = [];
  let at = 0;
  for (const { aFrom, aTo, bFrom, bTo } of edits) {
    if (aFrom > at) found.push({ same: a.slice(at, aFrom).join("") });
    found.push({ removed: a.slice(aFrom, aTo).join(""), added: b.slice(bFrom, bTo).join("") });
    at = aTo;
  }
  if (at < a.length) found.push({ same: a.slice(at).join("") });
  return found;
}

function editsOf(a, b, same) {
  const edits = [];
  let [aAt, bAt] = [0, 0];
  while (aAt < a.length || bAt < b.length) {
    while (aAt < a.length && same[aAt] === bAt) { aAt += 1; bAt += 1; }
    const [aFrom, bFrom] = [aAt, bAt];
    while (aAt < a.length && same[aAt] < 0) aAt += 1;
    bAt = aAt < a.length ? same[aAt] : b.length;
    if (aAt > aFrom || bAt > bFrom) edits.push({ aFrom, aTo: aAt, bFrom, bTo: bAt });
  }
  return edits;
}

/** "one. +two.+" may as well be "one+. two+.": what is only added, or only removed, goes where a reader would cut. */
function slide(a, b, edits, index) {
  const edit = edits[index];
  const isAdded = edit.aFrom === edit.aTo;
  if (!isAdded && edit.bFrom < edit.bTo) return;
  const [list, from, to] = isAdded ? [b, edit.bFrom, edit.bTo] : [a, edit.aFrom, edit.aTo];
  const [earlier, later] = [edits[index - 1], edits[index + 1]];
  const before = edit.aFrom - (earlier ? earlier.aTo + 1 : 0);
  const after = (later ? later.aFrom - 1 : a.length) - edit.aTo;
  let back = 0;
  while (back < Math.min(before, FARTHEST_SLIDE) && list[from - 1 - back] === list[to - 1 - back]) back += 1;
  let on = 0;
  while (on < Math.min(after, FARTHEST_SLIDE) && list[from + on] === list[to + on]) on += 1;
  const score = (by) => cutScore(list, from + by) + cutScore(list, to + by);
  let best = 0;
  for (let by = -back; by <= on; by += 1) if (score(by) > score(best)) best = by;
  for (const place of Object.keys(edit)) edit[place] += best;
}

/** How naturally a reader would cut before this token: between paragraphs, sentences, words. */
function cutScore(list, at) {
  const [left, right] = [list[at - 1], list[at]];
  if (left === undefined || right === undefined || left === "\n") return 4;
  if (right === "\n") return 3;
  const isSpaced = /^\s/.test(right);
  if (isSpaced && /^[.!?…。！？؟]/.test(left)) return 2;
  return isSpaced || /^\s/.test(left) ? 1 : 0;
}

/** Words replaced one by one with only a space between them read better as one replacement. */
function tidied(found) {
  const kept = [];
  for (const group of found) {
    const gap = kept.at(-1);
    const earlier = kept.at(-2);
    const joins = group.same === undefined && gap?.same !== undefined && /^[^\S\n]+$/.test(gap.same)
      && earlier?.removed && earlier.added && group.removed && group.added;
    if (joins) {
      kept.pop();
      earlier.removed += gap.same + group.removed;
      earlier.added += gap.same + group.added;
    } else kept.push(group);
  }
  return kept.flatMap((group) => (group.same !== undefined
    ? [{ kind: "same", text: group.same }]
    : [{ kind: "removed", text: group.removed }, { kind: "added", text: group.added }]));
}
