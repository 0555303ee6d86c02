// Both completions of a turn as they grow, from the socket of their conversation; without one, the page polls.
//
//   const streams = new Streams({ path, boxes: [a, b], onText, onOver, onPoll });
//   streams.watch(3, ["so far", "so far"]); streams.stop(); streams.nudge();
//
// Text is text here: Markdown is the server's to render, once both are there.

import { socketUrl, waitBefore } from "live";

const POLL_MS = 2000;
const SILENT_MS = 20_000;

export class Streams {
  #socket = null;
  #timer = 0;
  #poll = 0;
  #attempt = 0;
  #heard = 0;

  constructor({ path, boxes, onText = () => {}, onOver = () => {}, onPoll = () => {} }) {
    Object.assign(this, { path, boxes, onText, onOver, onPoll, number: 0 });
  }

  /** Open the socket before there is a turn: the models are made ready meanwhile. */
  expect() { this.#connect(); }

  /** Idempotent: the turn that is watched already goes on being watched. */
  watch(number, texts) {
    const isNew = this.number !== number;
    if (isNew || this.#socket?.readyState !== WebSocket.OPEN) this.#replace(texts);
    this.number = number;
    if (isNew) this.#ask();
    this.#connect();
    this.#poll ||= setInterval(() => {
      if (this.#socket?.readyState !== WebSocket.OPEN) this.onPoll();
      else if (Date.now() - this.#heard > SILENT_MS) this.#socket.close(); // half open, or its process is stuck
    }, POLL_MS);
  }

  stop() {
    this.number = 0;
    this.#poll = clearInterval(this.#poll) ?? 0;
  }

  /** Something about the turn changed: have its process look. */
  nudge() { this.#ask(); }

  #connect() {
    if (this.#socket || this.#timer) return;
    const socket = new WebSocket(socketUrl(this.path));
    this.#socket = socket;
    this.#heard = Date.now();
    socket.onopen = () => this.#ask();
    socket.onmessage = (event) => this.#hear(JSON.parse(event.data));
    socket.onclose = () => {
      this.#socket = null;
      if (!this.number) return;
      this.#timer = setTimeout(() => {
        this.#timer = 0;
        this.#connect();
      }, waitBefore(this.#attempt++) / 2);
    };
  }

  #ask() {
    if (this.number && this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify({ watch: this.number }));
  }

  #hear(message) {
    this.#heard = Date.now();
    this.#attempt = 0;
    if (message.turn !== this.number) return;
    if (message.texts) this.#replace(message.texts);
    if (message.more) this.boxes.forEach((box, index) => box.append(message.more[index]));
    if (this.boxes.some((box) => box.textContent)) this.onText();
    if (message.over) this.onOver();
  }

  #replace(texts) {
    this.boxes.forEach((box, index) => { box.textContent = texts[index] ?? ""; });
  }
}
