// What is asked of a completion beside its rank, as rows that digits answer: scales, acceptable, flags.
//
//   <fieldset data-part="rating|acceptable|flags"><legend>tone</legend> <label><input …><span>1</span></label> … </fieldset>

export const rowsOf = (element) => [...element.querySelectorAll("[data-part]")];

/** The first row that could be answered and isn't; flags are never missed. */
export const nextOpenRow = (element) => rowsOf(element).find((row) => row.dataset.part !== "flags" && !row.querySelector(":checked"));

export const rowName = (row) => row.querySelector("legend").textContent.replace("*", "").trim();

/** Chooses by a digit: the step that bears this number, else the option at this place; 0 is ten. Returns its name, or "". */
export function choose(row, digit) {
  const options = [...row.querySelectorAll("input")];
  // A scale without plain digits (-2 to 2, or 20 to 100) is answered by place.
  const isPlain = row.dataset.part === "rating" && options.every((option) => /^(\d|10)$/.test(option.value));
  const place = (Number(digit) + 9) % 10;
  const option = isPlain
    ? options.find((one) => one.value === digit) ?? (digit === "0" ? options.find((one) => one.value === "10") : undefined)
    : options[place];
  if (!option) return "";
  option.checked = option.type === "checkbox" ? !option.checked : true;
  const name = option.getAttribute("aria-label") ?? option.parentElement.querySelector("span").firstChild.textContent.trim();
  return option.checked ? name : `– ${name}`;
}

/** One step up or down the scale of a row. */
export function step(row, by) {
  const options = [...row.querySelectorAll("input[type=radio]")];
  const at = options.findIndex((option) => option.checked);
  const option = options[at < 0 ? (by > 0 ? 0 : options.length - 1) : Math.max(0, Math.min(options.length - 1, at + by))];
  if (!option || option.checked) return "";
  option.checked = true;
  return option.getAttribute("aria-label") ?? option.parentElement.querySelector("span").firstChild.textContent.trim();
}
