// Elements, icons and lists. Data enters the page only as text nodes and attribute values.

const SVG = 'http://www.w3.org/2000/svg';

export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  if (attributes) fill(element, attributes);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export function s(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  if (attributes) fill(element, attributes);
  element.append(...children);
  return element;
}

function fill(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttribute(element, name, value) {
  const text = String(value);
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

export function setHidden(element, hidden) {
  if (element.hidden !== hidden) element.hidden = hidden;
}

/** Makes `parent`'s children those of `items`, and keeps the element of a key. */
export function keyed(parent, items, key, create, update) {
  const old = parent.keyedChildren ?? new Map();
  const next = new Map();
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    const row = old.get(name) ?? create(item);
    next.set(name, row);
    old.delete(name);
    if (row === place) place = place.nextElementSibling;
    else parent.insertBefore(row, place);
    update(row, item);
  }
  for (const row of old.values()) row.remove();
  parent.keyedChildren = next;
}

const ICONS = {
  critical: ['M8 .8 15.2 8 8 15.2.8 8Z', 'M8 4.2v4.6M8 11v.6'],
  warning: ['M8 1.4 15.4 14.4H.6Z', 'M8 6v4M8 11.8v.6'],
  notice: ['M8 1.2a6.8 6.8 0 1 0 0 13.6A6.8 6.8 0 0 0 8 1.2Z', 'M8 7.2v4.2M8 4.4V5'],
  normal: ['M8 1.2a6.8 6.8 0 1 0 0 13.6A6.8 6.8 0 0 0 8 1.2Z', 'm5 8.2 2.2 2.2L11.2 6'],
  idle: [null, 'M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2ZM6.4 6v4M9.6 6v4'],
  absent: [null, 'M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2ZM5.5 8h5'],
  sun: [null, 'M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6ZM8 1v1.6M8 13.4V15M1 8h1.6M13.4 8H15M3 3l1.2 1.2M11.8 11.8 13 13M13 3l-1.2 1.2M4.2 11.8 3 13'],
  moon: [null, 'M13.6 9.6A6 6 0 0 1 6.4 2.4 6 6 0 1 0 13.6 9.6Z'],
  plus: [null, 'M8 3v10M3 8h10'],
  minus: [null, 'M3 8h10'],
  fit: [null, 'M2 6V2h4M10 2h4v4M14 10v4h-4M6 14H2v-4'],
  back: [null, 'M10 3 5 8l5 5'],
  forward: [null, 'm6 3 5 5-5 5'],
  chatter: [null, 'M1 8h2l1.6-4 2.6 8L9.800 4l2 8L13.400 8H15'],
  up: [null, 'M3 12 12.500 3.500M6 3.500h6.500V10'],
  down: [null, 'm3 4 9.500 8.500M6 12.500h6.500V6'],
  flat: [null, 'M2 8h11M9.500 4.500 13 8l-3.500 3.500'],
  silent: [null, 'M2 2l12 12M3 6a8 8 0 0 1 2-1.400M8 3.800A8 8 0 0 1 13 6M5.400 8.600a4 4 0 0 1 2-1M8 12h.1'],
};

export function icon(name, label) {
  const [body, stroke] = ICONS[name];
  const element = s('svg', { viewBox: '0 0 16 16', class: `icon icon-${name}`, width: 16, height: 16 });
  if (label) fill(element, { role: 'img', 'aria-label': label });
  else element.setAttribute('aria-hidden', 'true');
  if (body) element.append(s('path', { d: body, class: 'icon-body' }));
  element.append(s('path', { d: stroke, class: body ? 'icon-mark' : 'icon-line' }));
  return element;
}

/** A word with its icon, so that no meaning is in the colour alone. */
export function badge(kind, word, iconName = kind) {
  return h('span', { class: `badge badge-${kind}` }, icon(iconName), h('span', null, word));
}

export function setBadge(holder, kind, word, iconName = kind) {
  const sign = `${kind}|${word}|${iconName}`;
  if (holder.badgeSign === sign) return;
  holder.badgeSign = sign;
  holder.replaceChildren(badge(kind, word, iconName));
}

/** A large number with its name; `set` changes it. */
export function figure(name) {
  const value = h('dd', { class: 'figure-value' }, '–');
  const note = h('dd', { class: 'figure-note' }, '\u00a0');
  const element = h('div', { class: 'figure' }, h('dt', null, name), value, note);
  return {
    element,
    note,
    set(text, noteText, state = 'plain') {
      setText(value, text);
      if (noteText !== undefined) setText(note, noteText || '\u00a0');
      setAttribute(element, 'data-state', state);
    },
  };
}

/** A group of exclusive choices as real radio buttons. */
export function choices(name, legend, options, chosen, onchange) {
  return h('fieldset', { class: 'choices' },
    h('legend', { class: 'hidden-text' }, legend),
    options.map(([value, text]) => h('label', null,
      h('input', { type: 'radio', name, value, checked: value === chosen, onchange: () => onchange(value) }),
      h('span', null, text))));
}

export function table(caption, columns, attributes = {}) {
  const body = h('tbody');
  const head = columns.map((column) => {
    const [text, kind] = Array.isArray(column) ? column : [column, ''];
    return h('th', { scope: 'col', class: kind }, text);
  });
  const element = h('table', attributes,
    h('caption', { class: 'hidden-text' }, caption),
    h('thead', null, h('tr', null, head)),
    body);
  return { element, body, holder: h('div', { class: 'table-holder', tabindex: 0, role: 'region', 'aria-label': caption }, element) };
}

export function panel(title, attributes, ...children) {
  return h('section', { class: 'panel', ...attributes }, h('div', { class: 'panel-head' }, h('h2', null, title)), ...children);
}

let palette = null;

/** The theme's colours for canvases. */
export function colours() {
  if (!palette) {
    const style = getComputedStyle(document.documentElement);
    palette = new Proxy({}, {
      get(cache, name) {
        cache[name] ??= style.getPropertyValue(`--${String(name)}`).trim();
        return cache[name];
      },
    });
  }
  return palette;
}

window.addEventListener('genwatch-theme', () => { palette = null; });

export const calm = window.matchMedia('(prefers-reduced-motion: reduce)');

/** Fits a canvas to its box in device pixels; true if that changed it. */
export function fitCanvas(canvas, context, width, height) {
  const scale = Math.min(window.devicePixelRatio || 1, 2);
  const w = Math.max(1, Math.round(width * scale));
  const t = Math.max(1, Math.round(height * scale));
  const changed = canvas.width !== w || canvas.height !== t;
  if (changed) {
    canvas.width = w;
    canvas.height = t;
  }
  context.setTransform(scale, 0, 0, scale, 0, 0);
  return changed;
}
