// Care for the person at the bench: a word when judging goes faster than reading, a word about a break, blurred texts.
//
//   const care = new Care({ breakMinutes: 50, warnsWhenFast: true, clock, word });   word(text) shows it, calmly
//   care.submitted({ seconds: 2.1, words: 240 }); care.tick();

import { _, fill, ngettext } from "i18n";

const WORDS_PER_SECOND = 15; // 900 a minute: faster than anyone reads and understands
const FAST_IN_A_ROW = 2;
const BREAK_SECONDS = 300; // so long without a sign of life is a break taken

export class Care {
  #fast = 0;
  #worked = 0;
  #seen = 0;

  constructor({ breakMinutes, warnsWhenFast, clock, word }) {
    Object.assign(this, { breakSeconds: breakMinutes * 60, warnsWhenFast, clock, word });
  }

  /** A judgement went out after so many seconds of looking at so many words. */
  submitted({ seconds, words }) {
    this.#fast = seconds < words / WORDS_PER_SECOND ? this.#fast + 1 : 0;
    if (!this.warnsWhenFast || this.#fast < FAST_IN_A_ROW) return;
    const text = _("That was quick: %(words)s words in %(seconds)s s. Press u to look at it again, if you like.");
    this.word(fill(text, { words, seconds: seconds.toLocaleString(document.documentElement.lang, { maximumFractionDigits: 1 }) }));
  }

  /** Called now and then: adds up the time somebody really worked. */
  tick() {
    if (!this.breakSeconds) return;
    const total = this.clock.total;
    this.#worked += total - this.#seen;
    this.#seen = total;
    if (this.clock.idle > BREAK_SECONDS) this.#worked = 0;
    if (this.#worked < this.breakSeconds) return;
    const minutes = Math.round(this.#worked / 60);
    this.#worked = 0;
    this.word(fill(ngettext("You have worked for %(minutes)s minute without a break.", "You have worked for %(minutes)s minutes without a break.", minutes), { minutes }) + " " + _("Look up for a moment: your place is kept."));
  }
}

/** Texts of a sensitive project are blurred until asked for, once for each task. */
export function blur(form, { isOn }) {
  form.classList.toggle("is-blurred", isOn);
  for (const text of form.querySelectorAll("[data-blurred]")) text.toggleAttribute("inert", isOn);
  const words = form.querySelector("[data-reveal-words]");
  if (words) words.textContent = isOn ? _("show the texts") : _("blur the texts");
  return isOn;
}
