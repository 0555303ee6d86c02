// Keys of the bench: one table binds them and prints the help.
//
//   bindKeys(() => table, { isAsleep })      table: [{ keys: ["s"], says: "skip", shows: "s", run(event, key), when() }]
//   printHelp(element, table)
//
// Keys sleep inside text fields, in open dialogs, and together with Ctrl, Alt or the command key.

const TYPING = "textarea, select, [contenteditable], input:not([type=checkbox]):not([type=radio]):not([type=button])";

export function bindKeys(table, { target = document, isAsleep = () => false } = {}) {
  const listen = (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.closest?.("dialog[open], [popover]:popover-open") || isAsleep(event)) return;
    const typing = event.target.matches?.(TYPING);
    // Arrows belong to a radio group, Enter and the space bar to what has the focus.
    if (event.target.matches?.("input[type=radio]") && event.key.startsWith("Arrow")) return;
    if (event.key === "Enter" && event.target.matches?.("a, button:not([data-put]):not([data-verdict]), summary")) return;
    for (const entry of table()) {
      const key = keyOf(event);
      if (!entry.keys.includes(key) || (typing && !entry.whileTyping) || (entry.when && !entry.when())) continue;
      if (event.repeat && !entry.repeats) return event.preventDefault();
      if (entry.run(event, key) !== false) event.preventDefault();
      return;
    }
  };
  target.addEventListener("keydown", listen);
  return () => target.removeEventListener("keydown", listen);
}

/** "a", "shift+a", "Enter", "?": letters and digits by what they type, so it fits every keyboard layout. */
export function keyOf(event) {
  const key = event.key;
  if (/^[A-Z]$/.test(key)) return event.shiftKey ? `shift+${key.toLowerCase()}` : key.toLowerCase(); // caps lock
  if (event.shiftKey && key.length > 1) return `shift+${key}`;
  // On some layouts digits need shift; the key itself still says which.
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code || "");
  return digit && !/^\d$/.test(key) && !event.shiftKey ? digit[1] : key;
}

export function printHelp(element, table) {
  const list = document.createElement("table");
  const body = list.createTBody();
  for (const { shows, says } of table.filter((entry) => entry.shows)) {
    const row = body.insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    for (const word of shows.split(" ")) {
      const part = document.createElement(/^(to|or|then|–|,)$/.test(word) ? "span" : "kbd");
      part.textContent = word;
      head.append(part, " ");
    }
    row.append(head);
    row.insertCell().textContent = says;
  }
  element.replaceChildren(list);
}
