// Words of the scripts in the language of the page.
//
//   import { _, ngettext, fill } from "i18n";
//   _("saved")                                          what is marked this way, makemessages finds
//   fill(ngettext("%(n)s task", "%(n)s tasks", n), { n })
//
// English is in the code; another language's catalogue is a script of its own that base.html loads before.

const catalogue = globalThis.django ?? {};

export const gettext = (text) => catalogue.gettext?.(text) ?? text;
export const _ = gettext;
export const ngettext = (one, many, n) => catalogue.ngettext?.(one, many, n) ?? (n === 1 ? one : many);

/** "%(name)s is here" with { name }. A name that isn't given stays as it is. */
export const fill = (text, values) => text.replace(/%\((\w+)\)s/g, (whole, name) => String(values[name] ?? whole));
