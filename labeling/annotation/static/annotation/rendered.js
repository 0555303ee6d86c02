// The rendered text of a completion: what is selected in it, and marks of the source shown in it.
//
//   new Rendered(element).within(range)                  { quote, ordinal, share }: the words, which occurrence, how far down
//   new Rendered(element).rangeOf(placeOf(quote, start, source))   where the quote is, or null where one can't be sure
//   highlight(element, () => [{ ...placeOf(…), style }])     underlines them, at the next quiet moment
//
// Underlines need the CSS Custom Highlight API; without it, the list of marks alone says where they are.

import { Folded } from "passages";

const NOT_TEXT = ".invisible-char, .code-head, .link-address, annotation";
export const STYLES = 6; // of underlines; labels beyond share them
const registry = globalThis.CSS?.highlights ?? null;
const MOST = 50; // occurrences that are counted
const highlights = [];
const rangesOf = new WeakMap();
const waiting = new WeakMap();

if (registry && globalThis.Highlight) {
  for (let style = 0; style < STYLES; style += 1) {
    highlights.push(new Highlight());
    registry.set(`mark-style-${style}`, highlights[style]);
  }
}

/**
 * What to look for: the quote at this place of the source, which of its occurrences that is, and of how many, with white
 * space folded and, failing that, without Markdown's signs. `source(withoutMarkup)` gives the folded source.
 */
export function placeOf(quote, start, source) {
  const tries = [false, true].map((withoutMarkup) => {
    const found = source(withoutMarkup).find(quote, { most: MOST });
    return { withoutMarkup, ordinal: found.findIndex(([from]) => from >= start), count: found.length };
  });
  return { quote, tries };
}

export class Rendered {
  #nodes = []; // [node, start]
  #loose = null;

  constructor(element) {
    const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT, {
      acceptNode: (node) => (node.nodeType === Node.TEXT_NODE ? NodeFilter.FILTER_ACCEPT : node.matches(NOT_TEXT) ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_SKIP),
    });
    const parts = [];
    let length = 0;
    while (walker.nextNode()) {
      this.#nodes.push([walker.currentNode, length]);
      parts.push(walker.currentNode.data);
      length += walker.currentNode.data.length;
    }
    this.text = parts.join("");
    this.folded = new Folded(this.text);
  }

  within(range) {
    let [start, end] = [null, 0];
    for (const [node, from] of this.#nodes) {
      if (!range.intersectsNode(node)) continue;
      start ??= from + (node === range.startContainer ? range.startOffset : 0);
      end = from + (node === range.endContainer ? range.endOffset : node.data.length);
    }
    const quote = this.text.slice(start ?? 0, end);
    const before = this.folded.find(quote).filter(([from]) => from < (start ?? 0));
    return { quote, ordinal: before.length, share: this.text.length ? (start ?? 0) / this.text.length : 0 };
  }

  rangeOf({ quote, tries }) {
    for (const { withoutMarkup, ordinal, count } of tries) {
      this.#loose ??= withoutMarkup ? new Folded(this.text, { withoutMarkup }) : null;
      const found = (withoutMarkup ? this.#loose : this.folded).find(quote, { most: MOST });
      if (ordinal < 0 || found.length !== count || count === MOST) continue;
      const range = document.createRange();
      range.setStart(...this.#pointOf(found[ordinal][0]));
      range.setEnd(...this.#pointOf(found[ordinal][1] - 1, 1));
      return range;
    }
    return null;
  }

  #pointOf(place, more = 0) {
    let low = 0;
    let high = this.#nodes.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#nodes[middle][1] <= place) low = middle;
      else high = middle - 1;
    }
    const [node, start] = this.#nodes[low];
    return [node, place - start + more];
  }
}

export function highlight(element, wanted) {
  if (!highlights.length) return;
  clearHighlights(element);
  const idle = globalThis.requestIdleCallback ?? ((run) => setTimeout(run, 50));
  const ticket = {};
  waiting.set(element, ticket);
  idle(() => {
    if (waiting.get(element) !== ticket || !element.isConnected) return;
    const passages = wanted();
    if (!passages.length) return;
    const rendered = new Rendered(element);
    const ranges = passages.map((passage) => [passage.style, rendered.rangeOf(passage)]).filter(([, range]) => range);
    for (const [style, range] of ranges) highlights[style].add(range);
    rangesOf.set(element, ranges);
  });
}

export function clearHighlights(element) {
  waiting.delete(element);
  for (const [style, range] of rangesOf.get(element) ?? []) highlights[style].delete(range);
  rangesOf.delete(element);
  // Texts of earlier tasks are gone from the page; so go their ranges.
  for (const one of highlights) for (const range of one) if (!range.startContainer.isConnected) one.delete(range);
}
