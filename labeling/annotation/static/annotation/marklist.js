// The list of marks below a completion: label, quote, comment, and what can be done with each.
//
//   const list = new MarkList(ul, { look, onShow, onRemove, onComment });
//   list.draw(marks, current); list.setCurrent(mark); list.edit(mark, { onClose });
//
//   look(mark) -> { style, tag, quote, words }      onComment(mark) after every letter, onClose() when that is over

import { _, fill } from "i18n";

export class MarkList {
  #element; #actions;
  #marks = [];
  #current = null;
  #editing = null;

  constructor(element, actions) {
    this.#element = element;
    this.#actions = actions;
  }

  draw(marks, current) {
    this.#marks = marks;
    this.#current = current;
    this.#editing = null;
    this.#element.replaceChildren(...marks.map((mark) => this.#item(mark)));
    this.#element.hidden = marks.length === 0;
  }

  setCurrent(mark) {
    this.#current = mark;
    [...this.#element.children].forEach((item, index) => {
      const isCurrent = this.#marks[index] === mark;
      if (isCurrent && !item.classList.contains("is-current")) this.#element.scrollTop = item.offsetTop - this.#element.offsetTop;
      item.classList.toggle("is-current", isCurrent);
    });
  }

  /** A field for the comment takes the place of what there is. */
  edit(mark, { onClose }) {
    this.#editing = { mark, onClose };
    this.#drawItem(mark);
    this.#element.querySelector("textarea").focus();
  }

  /** Puts the focus on the first mark, if there is one. */
  focus() {
    const [first] = this.#element.children;
    first?.querySelector("button").focus();
    return Boolean(first);
  }

  /** Only this one, so that a click on its way to another arrives. */
  #drawItem(mark) { this.#element.children[this.#marks.indexOf(mark)]?.replaceWith(this.#item(mark)); }

  #item(mark) {
    const { style, tag, quote, words } = this.#actions.look(mark);
    const item = make("li", `mark-item mark-style-${style}`);
    item.classList.toggle("is-current", mark === this.#current);
    const show = button("mark-show", "", () => this.#actions.onShow(mark));
    const quoted = make("q", "mark-quote", quote);
    quoted.dir = "auto";
    show.append(make("b", "mark-tag", tag), " ", make("span", "mark-name", mark.label), " ", quoted);
    item.append(show);
    if (this.#editing?.mark === mark) {
      item.append(this.#editor(mark, words));
      return item;
    }
    if (mark.comment) {
      const comment = make("span", "mark-comment", mark.comment);
      comment.dir = "auto";
      item.append(comment);
    }
    const tools = make("span", "mark-tools");
    const edit = button("mark-tool", mark.comment ? _("edit comment") : _("comment"), () => {
      this.edit(mark, { onClose: () => this.#element.children[this.#marks.indexOf(mark)]?.querySelector(".mark-tool").focus() });
    });
    const remove = button("mark-tool", _("remove"), () => this.#actions.onRemove(mark));
    for (const tool of [edit, remove]) tool.setAttribute("aria-label", `${tool.textContent}: ${words}`);
    tools.append(edit, remove);
    item.append(tools);
    return item;
  }

  #editor(mark, words) {
    const before = mark.comment;
    const field = make("textarea", "mark-editor");
    field.rows = 1;
    field.maxLength = 2000;
    field.value = before;
    field.dir = "auto";
    field.placeholder = _("Why? Enter keeps it");
    field.setAttribute("aria-label", fill(_("Comment on %(mark)s"), { mark: words }));
    const close = () => {
      if (this.#editing?.mark !== mark) return () => {};
      const { onClose } = this.#editing;
      this.#editing = null;
      this.#drawItem(mark);
      return onClose;
    };
    // Kept with every letter, so that nothing typed is lost; Escape puts the old words back.
    field.addEventListener("input", () => { mark.comment = field.value; this.#actions.onComment(mark); });
    field.addEventListener("blur", () => close());
    field.addEventListener("keydown", (event) => {
      if (event.isComposing || event.ctrlKey || event.metaKey) return;
      if (event.key === "Escape") { mark.comment = before; this.#actions.onComment(mark); }
      else if (event.key !== "Enter" || event.shiftKey) return;
      event.preventDefault();
      event.stopPropagation();
      close()(event.key === "Enter" && mark.comment.trim() ? _("Comment kept") : _("Comment left as it was"));
    });
    return field;
  }
}

function make(name, className, words = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = words;
  return made;
}

function button(className, words, run) {
  const made = make("button", className, words);
  made.type = "button";
  made.addEventListener("click", run);
  return made;
}
