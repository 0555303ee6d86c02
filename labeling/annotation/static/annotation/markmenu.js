// Labels to press: the legend below the marking view, and the menu beside what was selected by mouse or finger.
//
//   legend({ labels, page, styleOf, onLabel, onTurn, onDone })
//   openMenu({ card, range, items: [{ words, digit, style, run }] }) -> the menu, gone after a press
//   keysLine(), markingKeys()                what the keys do
//   watchSelections((range, host) => …)      a selection made by hand has come to rest in [data-card-text] or [data-marks-text]

import { _ } from "i18n";

export const PAGE = 9; // labels that digits reach at once

const QUIET_MS = 180;
let menu = null;

export const isMenuOpen = () => menu !== null;

export function closeMenu() {
  menu?.remove();
  menu = null;
}

export function openMenu({ card, range, items }) {
  closeMenu();
  menu = bar("marks-menu", _("Mark what is selected"));
  menu.dataset.marksMenu = "";
  for (const { words, digit, style, run } of items) menu.append(labelButton({ words, digit, style, run: () => { closeMenu(); run(); } }));
  card.append(menu);
  const rects = range.getClientRects();
  const rect = rects[rects.length - 1] ?? range.getBoundingClientRect();
  const outer = card.getBoundingClientRect();
  const left = Math.max(4, Math.min(rect.left - outer.left, outer.width - menu.getBoundingClientRect().width - 4));
  menu.style.setProperty("left", `${left}px`);
  menu.style.setProperty("top", `${rect.bottom - outer.top + 6}px`);
}

export function legend({ labels, page, styleOf, onLabel, onTurn, onDone }) {
  const made = bar("marks-legend", _("Labels"));
  made.dataset.marksLegend = "";
  const from = page * PAGE;
  labels.slice(from, from + PAGE).forEach((label, index) => {
    made.append(labelButton({ words: label, digit: String(index + 1), style: styleOf(label), run: () => onLabel(from + index + 1) }));
  });
  if (labels.length > PAGE) made.append(labelButton({ words: _("more"), digit: "0", run: onTurn }));
  const done = labelButton({ words: _("done"), run: onDone });
  done.className = "marks-done";
  done.append(" ", key("Esc"));
  made.append(done);
  // The text keeps the focus: its keys do the same.
  for (const button of made.querySelectorAll("button")) button.tabIndex = -1;
  return made;
}

/** What the keys do while passages are marked: [{ shows, says, isRare }], for the line below the text and for the help. */
export function markingKeys() {
  return [
    { shows: "← → ↑ ↓", says: _("move") },
    { shows: "shift", says: _("extends") },
    { shows: "[ ] − +", says: _("end by a letter") },
    { shows: "{ }", says: _("start") },
    { shows: "n p", says: _("next mark") },
    { shows: "⏎", says: _("comment") },
    { shows: "Del", says: _("remove") },
    { shows: "u", says: _("undo") },
    { shows: "Home End PageUp PageDown", says: _("ends of the line, ten lines up or down"), isRare: true },
    { shows: "Ctrl+Home Ctrl+End", says: _("first and last word"), isRare: true },
  ];
}

export function keysLine() {
  const line = document.createElement("p");
  line.className = "marks-keys";
  for (const { shows, says } of markingKeys().filter((one) => !one.isRare)) {
    const part = document.createElement("span");
    part.append(...shows.split(" ").map(key), ` ${says}`);
    line.append(part);
  }
  return line;
}

function bar(className, name) {
  const made = document.createElement("div");
  made.className = className;
  made.setAttribute("role", "toolbar");
  made.setAttribute("aria-label", name);
  // What is selected stays so while a button is pressed.
  for (const event of ["pointerdown", "mousedown"]) made.addEventListener(event, (pressed) => pressed.preventDefault());
  return made;
}

function labelButton({ words, digit = "", style = null, run }) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = style === null ? "mark-label" : `mark-label mark-style-${style}`;
  const name = document.createElement("span");
  name.className = "mark-name";
  name.textContent = words;
  if (digit) button.append(key(digit), " ");
  button.append(name);
  button.addEventListener("click", run);
  return button;
}

function key(words) {
  const made = document.createElement("kbd");
  made.textContent = words;
  return made;
}

/** One watch for all cards of the page. Selections made by keys are left alone. */
export function watchSelections(onRest) {
  let isPressed = false;
  let isByHand = false;
  let timer = 0;
  const look = () => {
    if (isPressed || !isByHand) return;
    const selection = getSelection();
    const range = selection.rangeCount && !selection.isCollapsed ? selection.getRangeAt(0) : null;
    const node = range?.commonAncestorContainer;
    const host = (node?.nodeType === Node.ELEMENT_NODE ? node : node?.parentElement)?.closest("[data-card-text], [data-marks-text]");
    closeMenu();
    if (host) onRest(range, host);
  };
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(look, QUIET_MS);
  };
  document.addEventListener("selectionchange", () => {
    if (getSelection().isCollapsed) closeMenu();
    soon();
  });
  document.addEventListener("pointerdown", (event) => {
    isPressed = true;
    isByHand = event.target instanceof Element && event.target.closest("[data-card-text], [data-marks-text]") !== null;
  }, true);
  for (const name of ["pointerup", "pointercancel"]) document.addEventListener(name, () => { isPressed = false; soon(); }, true);
  document.addEventListener("keydown", (event) => {
    isByHand = false;
    if (event.key !== "Escape" || !isMenuOpen()) return;
    closeMenu();
    event.preventDefault();
    event.stopImmediatePropagation();
  }, true);
}
