// The page that sets up what is asked: presets, rows, words for the steps of a scale, the preview.
//
//   <form data-builder> .. <input type="radio" name="preset"> .. [data-rows] .. <aside data-preview> .. </form>
//   <script id="presets" type="application/json">{"pair": {form}, ...}</script>
//
// A preset sets the switches. Rows that were typed stay as they are, also below a switch that is off.

import { addRow, tendRows } from "rows";
import { followForm } from "form_preview";

const LISTS = ["ratings", "flags", "marks"];
const SWITCHES = ["ranking", "ties", "none_acceptable", "strength", "acceptable", "corrections"];
const LONGEST_WORDED = 11;

const form = document.querySelector("[data-builder]");
const presets = JSON.parse(document.getElementById("presets").textContent);
const said = document.querySelector("[data-preset-said]");
document.documentElement.classList.add("has-script");
for (const part of document.querySelectorAll("[data-with-script]")) part.hidden = false;

if (form.querySelector("[name=preset]")) {
  tendRows(form, (words) => { said.textContent = words; });
  form.addEventListener("input", (event) => {
    if (event.target.name === "preset") fillIn(event.target.value);
    else if (event.target.matches("[data-low], [data-high]")) drawSteps(event.target.closest("[data-row]"));
    else if (event.target.matches("[data-step]")) wordsOf(event.target.closest("[data-row]")).set(event.target.dataset.step, event.target.value);
    if (event.target.name !== "preset") followPreset();
  });
  form.addEventListener("rows-changed", followPreset);
}
followForm(form.querySelector("[data-preview]"), form);

// --- presets ------------------------------------------------------------------------------------
function fillIn(key) {
  const wanted = presets[key];
  if (!wanted) return;
  for (const name of SWITCHES) form.elements[name].checked = wanted[name];
  for (const name of ["rationale", "demonstration"]) form.elements[name].value = wanted[name];
  for (const field of form.querySelectorAll("[name=required]")) field.checked = wanted.required.includes(field.value);
  for (const name of LISTS) {
    const asks = Array.isArray(wanted[name]) ? wanted[name].length > 0 : Object.keys(wanted[name]).length > 0;
    form.elements[`asks_${name}`].checked = asks;
    if (asks && !hasRows(name)) fillRows(name, wanted[name]);
  }
  form.dispatchEvent(new CustomEvent("rows-changed"));
}

function hasRows(name) {
  return [...form.querySelectorAll(`[data-rows="${name}"] [data-row-first]`)].some((field) => field.value.trim());
}

function fillRows(name, wanted) {
  form.querySelector(`[data-rows="${name}"]`).replaceChildren();
  if (name !== "ratings") {
    for (const label of wanted) addRow(form, name, null, { focus: false }).querySelector("input").value = label;
    return;
  }
  for (const [axis, scale] of Object.entries(wanted)) {
    const row = addRow(form, name, null, { focus: false });
    row.querySelector("[data-row-first]").value = axis;
    row.querySelector("[data-low]").value = scale.low;
    row.querySelector("[data-high]").value = scale.high;
    row.querySelector("[name$='.help']").value = scale.help ?? "";
    for (const [step, word] of Object.entries(scale.labels ?? {})) wordsOf(row).set(step, word);
    drawSteps(row);
  }
}

/** The chosen card stays chosen while the form asks for the same parts as it does. */
function followPreset() {
  const now = shape((name) => form.elements[`asks_${name}`].checked, (name) => form.elements[name]);
  const chosen = form.querySelector("[name=preset]:checked");
  const fits = (key) => shape((name) => Object.keys(presets[key][name]).length > 0, (name) => asField(presets[key][name])) === now;
  if (chosen && fits(chosen.value)) return;
  const key = Object.keys(presets).find(fits);
  for (const radio of form.querySelectorAll("[name=preset]")) radio.checked = radio.value === key;
}

function shape(isAsked, field) {
  const switches = ["ranking", "strength", "acceptable", "corrections"].map((name) => field(name).checked);
  // How much better is asked for together with a ranking only.
  switches[1] &&= switches[0];
  return JSON.stringify([...switches, ...LISTS.map(isAsked), field("demonstration").value !== "off"]);
}

function asField(value) {
  return { checked: value === true, value };
}

// --- words for the steps of a scale ---------------------------------------------------------------
const words = new WeakMap();

/** Every word that was typed in this row, also for steps that the scale doesn't have at the moment. */
function wordsOf(row) {
  if (!words.has(row)) words.set(row, new Map([...row.querySelectorAll("[data-step]")].map((field) => [field.dataset.step, field.value])));
  return words.get(row);
}

function drawSteps(row) {
  const known = wordsOf(row);
  const [low, high] = ["[data-low]", "[data-high]"].map((name) => wholeOf(row.querySelector(name).value));
  if (low === null || high === null || low >= high) return;
  const all = high - low < LONGEST_WORDED ? Array.from({ length: high - low + 1 }, (_, index) => low + index) : [low, high];
  const token = row.querySelector("[name=axis]").value;
  const labels = all.map(String).map((step) => {
    const label = document.createElement("label");
    const number = document.createElement("span");
    number.textContent = step;
    const field = Object.assign(document.createElement("input"), { name: `axis.${token}.word.${step}`, value: known.get(step) ?? "", maxLength: 80, autocomplete: "off" });
    field.dataset.step = step;
    label.append(number, field);
    return label;
  });
  row.querySelector("[data-steps]").replaceChildren(...labels);
}

function wholeOf(text) {
  return /^\s*-?\d{1,6}\s*$/.test(text) ? Number(text) : null;
}
