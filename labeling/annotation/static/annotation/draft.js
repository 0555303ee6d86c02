// Nothing typed or ranked gets lost: drafts to the server and, beside it, to this browser; and submissions that
// wait until the network takes them.
//
//   const draft = new Draft({ lease, user, read, send, onState });   read() -> URLSearchParams
//   draft.changed(); await draft.flush(); draft.drop();
//   const outbox = new Outbox({ user, onState, onAnswer });
//   outbox.post({ lease, url, body }); outbox.flush();

const SOON_MS = 600;
const RETRY_MS = [1000, 2000, 5000, 10_000, 20_000];

/** POSTs a form as the page's own script. Throws NetworkDown if no answer came, or none of ours. */
export async function post(url, body = "", { keepalive = false } = {}) {
  let response;
  try {
    response = await fetch(url, {
      method: "POST",
      body: String(body),
      headers: { "Content-Type": "application/x-www-form-urlencoded", "X-Bench": "1", "X-CSRFToken": csrfToken(), Accept: "application/json" },
      redirect: "manual",
      keepalive,
    });
  } catch {
    throw new NetworkDown("offline");
  }
  if (response.type === "opaqueredirect" || response.status === 403) throw new NetworkDown("logged-out");
  if (response.status >= 500 || response.status === 429) throw new NetworkDown("server");
  const answer = response.headers.get("Content-Type")?.includes("json") ? await response.json() : {};
  return { status: response.status, ok: response.ok, ...answer };
}

export class NetworkDown extends Error {
  constructor(reason) {
    super(reason);
    this.reason = reason;
  }
}

function csrfToken() {
  // The cookie first: logging in again in another tab changes it.
  const cookie = /(?:^|; )csrftoken=([^;]+)/.exec(document.cookie);
  return cookie ? cookie[1] : document.querySelector("input[name=csrfmiddlewaretoken]")?.value ?? "";
}

/** After the next frame was painted; soon all the same where none is, as in a hidden tab. */
export function afterPaint(run) {
  let timer = 0;
  const once = () => {
    if (timer) run();
    clearTimeout(timer);
    timer = 0;
  };
  timer = setTimeout(once, 200);
  requestAnimationFrame(() => setTimeout(once, 0));
}

const store = {
  get(key) {
    try { return JSON.parse(localStorage.getItem(key)); } catch { return null; }
  },
  set(key, value) {
    try {
      if (value === null) localStorage.removeItem(key);
      else localStorage.setItem(key, JSON.stringify(value));
    } catch { /* full or forbidden: the server's copy remains */ }
  },
};

export class Draft {
  #timer = 0;
  #dirty = false;
  #sending = null;
  #closed = false;

  constructor({ url, lease, user, read, onState = () => {} }) {
    Object.assign(this, { url, read, onState, name: `prefloop.draft.${user}.${lease}` });
  }

  /** What this browser has and the server never confirmed, or null. */
  unsaved() {
    return store.get(this.name)?.body ?? null;
  }

  changed() {
    if (!this.url || this.#closed) return;
    this.#dirty = true;
    store.set(this.name, { body: String(this.read()), at: Date.now() });
    this.onState("saving");
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.flush(), SOON_MS);
  }

  async flush(options) {
    clearTimeout(this.#timer);
    if (!this.url || !this.#dirty || this.#closed) return;
    if (this.#sending) await this.#sending;
    if (!this.#dirty || this.#closed) return;
    this.#dirty = false;
    this.#sending = this.#send(options);
    await this.#sending;
    this.#sending = null;
  }

  async #send(options) {
    try {
      const answer = await post(this.url, this.read(), options);
      if (this.#closed) return;
      if (!this.#dirty) {
        if (answer.ok) store.set(this.name, null);
        this.onState(answer.ok ? "saved" : answer.state ?? "refused", answer.message);
      }
    } catch (error) {
      if (this.#closed) return;
      this.#dirty = true;
      this.onState(error.reason ?? "offline");
      this.#timer = setTimeout(() => this.flush(), 5000);
    }
  }

  /** The task is over: neither send nor keep it any more. */
  drop() {
    this.#closed = true;
    clearTimeout(this.#timer);
    store.set(this.name, null);
  }
}

/** Submissions on their way. Each carries its own key, so sending one again is harmless. */
export class Outbox {
  #busy = false;
  #timer = 0;
  #tries = 0;

  constructor({ user, onState = () => {}, onAnswer = () => {} }) {
    Object.assign(this, { onState, onAnswer, name: `prefloop.outbox.${user}` });
    this.waiting = store.get(this.name) ?? [];
    window.addEventListener("online", () => this.flush());
  }

  get leases() { return this.waiting.map((item) => item.lease); }

  has(lease) { return this.leases.includes(lease); }

  /** Kept at once, sent once what the page has to show is on the screen. */
  post(item) {
    this.#sync();
    this.waiting.push(item);
    this.#write();
    afterPaint(() => this.flush());
  }

  async flush() {
    if (this.#busy) return;
    clearTimeout(this.#timer);
    this.#busy = true;
    try {
      while (this.waiting.length > 0) {
        const item = this.waiting[0];
        this.onState("saving", this.waiting.length);
        const answer = await post(item.url, item.body);
        this.#tries = 0;
        this.waiting.shift();
        this.#write();
        if (this.waiting.length === 0) this.onState(answer.ok ? "saved" : "refused", 0);
        this.onAnswer(item, answer);
      }
    } catch (error) {
      if (!(error instanceof NetworkDown)) throw error;
      this.onState(error.reason, this.waiting.length);
      this.#timer = setTimeout(() => this.flush(), RETRY_MS[Math.min(this.#tries++, RETRY_MS.length - 1)]);
    } finally {
      this.#busy = false;
    }
  }

  /** Another tab of the same person may have added some; the keys make sending twice harmless. */
  #sync() {
    const seen = new Set(this.waiting.map((item) => item.body));
    for (const item of store.get(this.name) ?? []) if (!seen.has(item.body) && this.#busy === false) this.waiting.push(item);
  }

  #write() {
    store.set(this.name, this.waiting.length ? this.waiting : null);
  }
}

/** Seconds somebody really looked: the tab in sight, and a sign of life in the last minute. */
export class Clock {
  #last = performance.now();
  #alive = performance.now();

  constructor({ seconds = 0, idleAfter = 60 } = {}) {
    this.seconds = seconds; // on this task
    this.total = 0; // since the page was opened
    this.idleAfter = idleAfter;
    this.tick = this.tick.bind(this);
  }

  start() {
    const sign = () => { this.tick(); this.#alive = performance.now(); };
    for (const name of ["keydown", "pointerdown", "pointermove", "wheel", "scroll", "touchmove"]) {
      document.addEventListener(name, sign, { passive: true, capture: true });
    }
    document.addEventListener("visibilitychange", () => this.tick({ was: document.visibilityState !== "visible" }));
    setInterval(this.tick, 1000);
  }

  /** Idle for this many seconds. */
  get idle() { return (performance.now() - this.#alive) / 1000; }

  restart(seconds = 0) {
    this.tick();
    this.seconds = seconds;
    this.#alive = performance.now();
  }

  tick({ was = document.visibilityState === "visible" } = {}) {
    const now = performance.now();
    const active = Math.min(now, this.#alive + this.idleAfter * 1000) - this.#last;
    if (was && active > 0) {
      this.seconds += active / 1000;
      this.total += active / 1000;
    }
    this.#last = now;
  }
}
