// The keys of the bench, in one table: it binds them, prints the help and labels the controls.
//
//   keysOf(bench) -> [{ name, keys, shows, says, run }]      bench: { task, actions }
//   labelKeys(form, table)                                   fills <kbd data-key-of="skip"></kbd>

import { _, fill } from "i18n";
import { markingKeys } from "markmenu";
import { step } from "parts";
import * as Ranking from "ranking";

const DIGITS = [..."1234567890"];

/** Letters that pick completions come first; an action whose letter is taken by one has a second. */
function free(keys, ...wanted) {
  return wanted.find((key) => !keys.includes(key));
}

export function keysOf({ task, actions }) {
  const help = { name: "help", keys: ["?"], shows: "?", says: _("this list"), run: () => actions.help() };
  if (!task) {
    const reading = actions.isReading?.() ? [
      { name: "read", keys: ["Enter"], shows: "Enter", says: _("I have read what changed"), run: () => actions.haveRead() },
      { name: "guideline", keys: ["g"], shows: "g", says: _("open or close the whole guideline"), run: () => actions.wholeGuideline() },
    ] : [];
    return [
      ...reading,
      { name: "undo", keys: ["u"], shows: "u", says: _("reopen the last judgement"), run: () => actions.undo() },
      { name: "history", keys: ["j"], shows: "j", says: _("your past judgements"), run: () => actions.history() },
      help,
    ];
  }
  const { form, keys, layout } = task;
  const has = (selector) => Boolean(form.querySelector(selector));
  const picksFirst = (run) => (event, key) => (task.picked ? run(key) : task.say(_("Pick a completion first: press its letter")));
  const inRow = (run) => (event, key) => (task.row ? run(key) : undefined);
  const entries = [];

  if (keys.length) {
    const [first, last] = [keys[0], keys.at(-1)];
    const span = (before = "") => (first === last ? before + first : `${before}${first} – ${before}${last}`);
    const pick = { name: "pick", says: _("pick a completion"), run: (_event, key) => task.pick(key.at(-1)) };
    const rankNext = { name: "rankNext", says: _("rank it next, below those ranked"), run: (_event, key) => task.rankNext(key.at(-1)) };
    const shifted = keys.map((key) => `shift+${key}`);
    if (layout === "tiers" && actions.picksBestFirst()) {
      entries.push({ ...rankNext, keys, shows: span() }, { ...pick, keys: shifted, shows: span("shift+") });
    } else {
      entries.push({ ...pick, keys, shows: span() });
      if (layout === "tiers") entries.push({ ...rankNext, keys: shifted, shows: span("shift+") });
    }
  }
  if (task.hasRows) {
    entries.push(
      { name: "row", keys: ["r"], shows: "r", says: _("rate, accept or flag the picked one; again: the next row"), run: () => task.nextRow() },
      { name: "answerRow", keys: DIGITS, when: () => task.row, shows: "0 – 9", says: _("in such a row: the step, or the option at that place"), run: inRow((key) => task.answerRow(key)) },
      { name: "rowUp", keys: ["ArrowUp"], when: () => task.row, shows: "↑ ↓", says: _("in such a row: the row above or below"), run: inRow(() => task.nextRow(-1)) },
      { name: "rowDown", keys: ["ArrowDown"], when: () => task.row, run: inRow(() => task.nextRow(1)) },
      { name: "stepDown", keys: ["ArrowLeft"], when: () => task.row, shows: "← →", says: _("in such a row: a step less or more"), run: inRow(() => stepRow(task, -1)) },
      { name: "stepUp", keys: ["ArrowRight"], when: () => task.row, run: inRow(() => stepRow(task, 1)) },
    );
  }
  if (layout === "tiers") {
    entries.push(
      { name: "put", keys: DIGITS.slice(0, keys.length), shows: `1 – ${keys.length}`, says: _("put it in that rank"), run: picksFirst((key) => task.rank(task.picked, Number(key))) },
      { name: "up", keys: ["ArrowUp"], repeats: true, shows: "↑", says: _("half a step up: out of a tie, or into the one above"), run: () => (task.picked ? task.change(task.picked, Ranking.up(task.ranking, task.picked)) : false) },
      { name: "down", keys: ["ArrowDown"], repeats: true, shows: "↓", says: _("half a step down"), run: () => (task.picked ? task.change(task.picked, Ranking.down(task.ranking, task.picked)) : false) },
      { name: "bestFirst", keys: ["q"], shows: "q", says: _("best first: letters rank at one stroke each; again: letters pick"), run: () => actions.bestFirst() },
    );
    if (task.ties) {
      entries.push({ name: "tie", keys: ["t"], shows: "t", says: _("tie it with the one above"), run: () => actions.tie() });
      entries.push({ name: "tieNext", keys: ["="], shows: "=", says: _("best first: the next letter ties with the last one"), run: () => { task.tieNext = true; task.announce(_("The next one ties")); } });
    }
    entries.push({ name: "unrank", keys: ["0", "Backspace"], shows: "0", says: _("take it out of the ranking"), run: picksFirst(() => task.rank(task.picked, 0)) });
  } else if (layout === "pair") {
    for (const button of form.querySelectorAll("[data-verdict]")) {
      entries.push({ name: "verdict", keys: [button.dataset.verdict], shows: button.dataset.verdict, says: button.querySelector("span").textContent, run: () => task.decide(button) });
    }
  }
  if (has("[data-part=acceptable]")) {
    entries.push({ name: "accept", keys: ["y"], shows: "y", says: _("the picked one is acceptable"), run: () => task.accept(true) });
    entries.push({ name: "refuse", keys: ["x"], shows: "x", says: _("the picked one is not acceptable"), run: () => task.accept(false) });
  }
  if (has("[data-marks]")) entries.push({ name: "mark", keys: ["m"], shows: "m", says: _("mark a passage of the picked one"), run: () => task.mark() });
  if (has("[data-correction]")) {
    const key = free(keys, "e", "v");
    entries.push({ name: "edit", keys: [key], shows: key, says: _("edit the picked completion"), run: () => task.edit() });
  }
  if (has("[data-demonstration-field]")) {
    const key = free(keys, "d", "k");
    entries.push({ name: "write", keys: [key], shows: key, says: _("write the completion that you would want"), run: () => task.write() });
  }
  if (keys.length > 1) {
    entries.push(
      { name: "before", keys: ["ArrowLeft"], repeats: true, shows: "←", says: _("pick the one before"), run: () => task.move(-1) },
      { name: "after", keys: ["ArrowRight"], repeats: true, shows: "→", says: _("pick the one after"), run: () => task.move(1) },
    );
  }
  entries.push({ name: "submit", keys: ["Enter"], shows: "Enter", says: form.dataset.revision ? _("replace the judgement") : _("submit"), run: () => actions.submit() });
  if (has("[data-none]")) entries.push({ name: "none", keys: ["n"], shows: "n", says: layout === "pair" ? _("both are bad") : _("none is good"), run: () => actions.none() });
  if (form.dataset.skipUrl) entries.push({ name: "skip", keys: ["s"], shows: "s", says: _("skip this task"), run: () => actions.skip() });
  if (form.dataset.reportUrl) entries.push({ name: "report", keys: ["p"], shows: "p", says: _("report the prompt"), run: () => actions.report() });
  entries.push({ name: "undo", keys: ["u"], shows: "u", says: _("undo; with nothing to undo, reopen the last judgement"), run: () => actions.undo() });
  if (has("[data-guideline]")) {
    const key = free(keys, "g", "l");
    entries.push({ name: "guideline", keys: [key], shows: key, says: _("open or close the guideline"), run: () => actions.guideline() });
  }
  if (layout !== "pair" || has("[data-folded-turns]")) entries.push({ name: "unfold", keys: ["o"], shows: "o", says: _("open or fold what is long"), run: () => task.unfoldAll() });
  if (has("[data-rationale-field]")) entries.push({ name: "why", keys: ["w"], shows: "w", says: _("write why"), run: () => actions.why() });
  if (form.dataset.blur) entries.push({ name: "reveal", keys: ["z"], shows: "z", says: _("show or blur the texts"), run: () => actions.reveal() });
  entries.push(
    { name: "history", keys: ["j"], shows: "j", says: _("your past judgements"), run: () => actions.history() },
    { name: "submitTyping", keys: [], shows: "Ctrl+Enter", says: _("submit from within a text field") },
    help,
    ...(has("[data-marks]") ? markingKeys().map(({ shows, says }) => ({ keys: [], shows, says: fill(_("while marking: %(what)s"), { what: says }) })) : []),
    { name: "escape", keys: ["Escape"], whileTyping: true, shows: "Esc", says: _("leave a field or a row, let go of a card, close"), run: () => actions.escape() },
  );
  return entries;
}

function stepRow(task, by) {
  const said = step(task.row, by);
  if (!said) return;
  task.changed();
  task.announce(said);
}

export function labelKeys(form, table) {
  for (const label of form.querySelectorAll("[data-key-of]")) {
    label.textContent = table.find((entry) => entry.name === label.dataset.keyOf)?.shows ?? "";
  }
}
