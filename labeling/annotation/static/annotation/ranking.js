// The ranking as lists. Pure: knows no page.
//
// A ranking has a tray of cards not ranked yet and as many tiers as cards, best first; a tier may be empty and
// several cards in one tier are tied. Every function returns a new ranking, or the very same one if nothing changes.
//
//   { keys: ["a", "b", "c"], ties: true, tray: ["c"], tiers: [["b"], ["a"], []] }

export function emptyRanking(keys, { ties = true } = {}) {
  return { keys: [...keys], ties, tray: [...keys], tiers: keys.map(() => []) };
}

/** From the rank of each card, 1 the best; a card without one lies in the tray. */
export function fromRanks(keys, ranks, options) {
  let ranking = emptyRanking(keys, options);
  for (const key of keys) {
    const rank = Number(ranks[key]);
    if (rank >= 1 && rank <= keys.length) ranking = put(ranking, key, rank);
  }
  return ranking;
}

/** The card's tier, 1 the best; 0 in the tray. */
export function rankOf(ranking, key) {
  return ranking.tiers.findIndex((tier) => tier.includes(key)) + 1;
}

export const isComplete = (ranking) => ranking.tray.length === 0;

/** Tiers that hold something, best first: what is submitted. */
export const groups = (ranking) => ranking.tiers.filter((tier) => tier.length > 0);

/** All cards as they are seen, from best to the tray's last. */
export const inSight = (ranking) => [...ranking.tiers.flat(), ...ranking.tray];

/** Into this tier, beside whatever is there; into the tray for 0. Without ties it makes room instead. */
export function put(ranking, key, rank) {
  if (!ranking.keys.includes(key) || rank < 0 || rank > ranking.tiers.length) return ranking;
  if (rankOf(ranking, key) === rank) return ranking;
  if (rank === 0) {
    const next = lift(ranking, key);
    next.tray = ranking.keys.filter((other) => next.tray.includes(other) || other === key);
    return next;
  }
  if (!ranking.ties && ranking.tiers[rank - 1].length > 0) return insert(ranking, key, rank);
  const next = lift(ranking, key);
  next.tiers[rank - 1] = ranking.keys.filter((other) => next.tiers[rank - 1].includes(other) || other === key);
  return next;
}

/** Into a tier of its own at this place; the tiers in the way move down, or up where there is no room below. */
export function insert(ranking, key, rank) {
  if (!ranking.keys.includes(key) || rank < 1 || rank > ranking.tiers.length + 1) return ranking;
  const next = lift(ranking, key);
  const at = Math.min(rank - 1, next.tiers.length);
  // As many tiers as cards, and this card lies in none: some tier is empty.
  const below = next.tiers.findIndex((tier, index) => index >= at && tier.length === 0);
  const empty = below >= 0 ? below : next.tiers.findLastIndex((tier) => tier.length === 0);
  next.tiers.splice(empty, 1);
  next.tiers.splice(below >= 0 ? at : at - 1, 0, [key]);
  return same(ranking, next) ? ranking : next;
}

/** Half a step up: out of a tie to just above it, or, alone, into the tier above. */
export function up(ranking, key) {
  const rank = rankOf(ranking, key);
  if (rank === 0) return append(ranking, key);
  if (ranking.tiers[rank - 1].length > 1) return insert(ranking, key, rank);
  if (rank === 1) return ranking;
  return ranking.ties ? put(ranking, key, rank - 1) : swap(ranking, rank, rank - 1);
}

/** Half a step down: out of a tie to just below it, or, alone, into the tier below. */
export function down(ranking, key) {
  const rank = rankOf(ranking, key);
  if (rank === 0) return ranking;
  if (ranking.tiers[rank - 1].length > 1) return insert(ranking, key, rank + 1);
  if (rank === ranking.tiers.length) return ranking;
  return ranking.ties ? put(ranking, key, rank + 1) : swap(ranking, rank, rank + 1);
}

/** As the worst so far. */
export function append(ranking, key) {
  const others = lift(ranking, key);
  const last = others.tiers.findLastIndex((tier) => tier.length > 0);
  return insert(ranking, key, last + 2);
}

/** Equal to the nearest card above. */
export function tie(ranking, key) {
  if (!ranking.ties) return ranking;
  const rank = rankOf(ranking, key) || ranking.tiers.length + 1;
  const above = ranking.tiers.findLastIndex((tier, index) => index < rank - 1 && tier.length > 0);
  return above < 0 ? ranking : put(ranking, key, above + 1);
}

/** "b › a = d › c": the ranking in one line. */
export const inWords = (ranking) => groups(ranking).map((tier) => tier.join(" = ")).join(" › ");

function swap(ranking, one, other) {
  const next = { ...ranking, tiers: [...ranking.tiers] };
  [next.tiers[one - 1], next.tiers[other - 1]] = [ranking.tiers[other - 1], ranking.tiers[one - 1]];
  return next;
}

function lift(ranking, key) {
  const without = (list) => list.filter((other) => other !== key);
  return { ...ranking, tray: without(ranking.tray), tiers: ranking.tiers.map(without) };
}

const same = (one, other) => JSON.stringify([one.tray, one.tiers]) === JSON.stringify([other.tray, other.tiers]);

/** Remembers what a value was before each change. */
export class Past {
  #before = [];

  keep(value) {
    this.#before.push(value);
    if (this.#before.length > 200) this.#before.shift();
  }

  get isEmpty() { return this.#before.length === 0; }

  back() { return this.#before.pop(); }
}
