// Lists that are edited row by row: add, take out, move, by button and by key.
//
//   <ol data-rows="flags"> <li data-row> <input data-row-first> [data-row-up] [data-row-down] [data-row-drop] </li> </ol>
//   <template data-row-template="flags">...</template>   a new row; "__token__" in it becomes a number of its own
//   <button data-row-add="flags">
//
// Enter in a row adds one below, Alt with an arrow moves it, Backspace in an empty row of one field takes it out.
// Every change is a `rows-changed` event of the form. Without this script the buttons send the form, which the server
// changes in the same way.

export function tendRows(form, say) {
  form.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button || !form.contains(button)) return;
    const row = button.closest("[data-row]");
    if (button.dataset.rowAdd) addRow(form, button.dataset.rowAdd, null);
    else if (row && "rowUp" in button.dataset) move(row, -1, button);
    else if (row && "rowDown" in button.dataset) move(row, 1, button);
    else if (row && "rowDrop" in button.dataset) drop(row);
    else return;
    event.preventDefault();
  });
  form.addEventListener("keydown", (event) => {
    const row = event.target.closest?.("[data-row]");
    if (!row || event.isComposing) return;
    const isField = event.target.matches("input");
    if (event.altKey && (event.key === "ArrowUp" || event.key === "ArrowDown")) move(row, event.key === "ArrowUp" ? -1 : 1, event.target);
    else if (event.key === "Enter" && isField) addRow(form, row.parentElement.dataset.rows, row);
    else if (event.key === "Backspace" && isField && event.target.value === "" && row.querySelectorAll("input").length === 1) drop(row);
    else return;
    event.preventDefault();
  });

  function move(row, step, focused) {
    const other = step < 0 ? row.previousElementSibling : row.nextElementSibling;
    if (!other) return;
    if (step < 0) other.before(row);
    else other.after(row);
    // The end of the list has no such button: the field keeps the keyboard.
    const at = getComputedStyle(focused).visibility === "hidden" ? row.querySelector("[data-row-first]") : focused;
    at.focus();
    say(`${nameOf(row)} is number ${[...row.parentElement.children].indexOf(row) + 1}`);
    changed(form);
  }

  function drop(row) {
    const list = row.parentElement;
    const next = row.nextElementSibling ?? row.previousElementSibling;
    say(`${nameOf(row)} taken out`);
    row.remove();
    const place = next?.querySelector("[data-row-first]") ?? form.querySelector(`[data-row-add="${list.dataset.rows}"]`);
    place.focus();
    changed(form);
  }
}

/** Adds an empty row, below `after` or at the end, and puts the keyboard there. */
export function addRow(form, name, after, { focus = true } = {}) {
  const list = form.querySelector(`[data-rows="${name}"]`);
  const template = form.querySelector(`[data-row-template="${name}"]`);
  const row = template.content.firstElementChild.cloneNode(true);
  const token = nextToken(list);
  for (const field of row.querySelectorAll("[name], [id]")) {
    field.name = field.name.replace("__token__", token);
    if (field.type === "hidden" && field.name === "axis") field.value = token;
  }
  if (after) after.after(row);
  else list.append(row);
  if (focus) row.querySelector("[data-row-first]").focus();
  changed(form);
  return row;
}

export function changed(form) {
  form.dispatchEvent(new CustomEvent("rows-changed"));
}

function nameOf(row) {
  return row.querySelector("[data-row-first]").value || "The empty row";
}

function nextToken(list) {
  const taken = [...list.querySelectorAll("input[name=axis]")].map((field) => Number(field.value) || 0);
  return String(Math.max(-1, ...taken) + 1);
}
