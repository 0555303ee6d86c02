/**
 * Hears that something on the page has changed; the page then fetches what it shows.
 *
 *   <html data-live-port="8001">            (0 or absent: the page's own port)
 *
 *   import { watch } from "live/live.js";
 *   const stop = watch("projects/support/", {
 *     onEvent({ id, name, payload }) { ... },  // also called with name "reload" after a long absence
 *     onState(state) { ... },                  // "open", "waiting", "refused"
 *     onPoll() { ... },                        // every 15 s while there is no socket
 *   });
 *
 * Without a socket the page still works: it polls.
 */

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 30_000;
const POLL_MS = 15_000;
const PING_MS = 25_000;
const SILENT_MS = 60_000;
const NOT_WELCOME = new Set([4403, 1008]);

/** Address of a socket. `port` 0 is the page's own. */
export function socketUrl(path, { location = window.location, port = livePort(), after = null } = {}) {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const host = port ? `${location.hostname}:${port}` : location.host;
  const query = after === null ? "" : `?after=${after}`;
  return `${scheme}//${host}/live/${path}${query}`;
}

/** Milliseconds before attempt `n` (from 0): doubling, with up to half of it left to chance. */
export function waitBefore(n, random = Math.random) {
  const longest = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** n);
  return longest / 2 + (longest / 2) * random();
}

function livePort() {
  return Number(document.documentElement.dataset.livePort || document.body?.dataset.livePort || 0);
}

export function watch(path, { onEvent, onState = () => {}, onPoll = () => {}, after = null } = {}) {
  let socket = null;
  let seen = after;
  let attempt = 0;
  let stopped = false;
  let lastHeard = 0;
  let reconnectTimer = 0;
  let pollTimer = 0;
  let state = "";

  const say = (next) => {
    if (next !== state) onState((state = next));
  };
  const poll = (on) => {
    if (on && !pollTimer) pollTimer = setInterval(onPoll, POLL_MS);
    if (!on && pollTimer) pollTimer = clearInterval(pollTimer) ?? 0;
  };
  const hear = (message) => {
    if (message.reload) onEvent({ id: seen, name: "reload", payload: {} });
    if (typeof message.id === "number" && (seen === null || message.id > seen)) seen = message.id;
    if (message.name) onEvent(message);
  };

  function connect() {
    reconnectTimer = 0;
    if (stopped || socket) return;
    const opened = new WebSocket(socketUrl(path, { after: seen }));
    socket = opened;
    opened.onopen = () => {
      lastHeard = Date.now();
      poll(false);
      say("open");
    };
    opened.onmessage = (event) => {
      attempt = 0;
      lastHeard = Date.now();
      let message;
      try {
        message = JSON.parse(event.data);
      } catch {
        return;
      }
      hear(message);
    };
    opened.onclose = (event) => {
      if (socket !== opened) return;
      socket = null;
      if (stopped) return;
      poll(true);
      if (NOT_WELCOME.has(event.code)) {
        say("refused"); // logged out or no longer a member: the next page says so
        return;
      }
      say("waiting");
      reconnectTimer = setTimeout(connect, waitBefore(attempt++));
    };
  }

  const pingTimer = setInterval(() => {
    if (socket?.readyState !== WebSocket.OPEN) return;
    if (Date.now() - lastHeard > SILENT_MS) socket.close(); // half open: the other end is long gone
    else socket.send('{"ping":1}');
  }, PING_MS);
  const wake = () => {
    if (document.visibilityState === "hidden" || stopped || socket) return;
    clearTimeout(reconnectTimer);
    attempt = 0;
    connect();
  };
  window.addEventListener("online", wake);
  document.addEventListener("visibilitychange", wake);

  poll(true);
  connect();
  return function stop() {
    stopped = true;
    clearTimeout(reconnectTimer);
    clearInterval(pingTimer);
    poll(false);
    window.removeEventListener("online", wake);
    document.removeEventListener("visibilitychange", wake);
    socket?.close();
  };
}
