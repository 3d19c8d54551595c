// Charts on canvas: a line with its thresholds, bars, a small trend line.

import { count, FIELDS, reading, shortTime, timeOfDay, withUnit } from './format.js';
import { colours, fitCanvas } from './ui.js';

const FONT = '12px -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans Condensed", system-ui, sans-serif';
const TIME_STEPS = [10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 14400, 21600].map((seconds) => seconds * 1000);

export function timeTicks(from, to, most) {
  const step = TIME_STEPS.find((one) => (to - from) / one <= most) ?? 21600000;
  const shift = new Date(from).getTimezoneOffset() * 60000;
  const ticks = [];
  for (let at = Math.ceil((from - shift) / step) * step + shift; at <= to; at += step) ticks.push(at);
  return { ticks, text: step < 60000 ? timeOfDay : shortTime };
}

function valueTicks(low, high, most) {
  const raw = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= raw) ?? raw;
  const ticks = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-6; at += step) ticks.push(at);
  return ticks;
}

export function hatch(context, x, y, width, height, colour, gap = 6) {
  context.save();
  context.beginPath();
  context.rect(x, y, width, height);
  context.clip();
  context.strokeStyle = colour;
  context.lineWidth = 1.5;
  context.beginPath();
  for (let at = x - height - ((x - height) % gap); at < x + width; at += gap) {
    context.moveTo(at, y + height);
    context.lineTo(at + height, y);
  }
  context.stroke();
  context.restore();
}

/**
 * One reading over time. `data`: {field, from, to, at, values, rules, incidents}. Drawn behind the line: the band between
 * a rule's raise and clear, the time an alarm was on, and hatched before and after it the delays that had to pass.
 */
export class LineChart {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext('2d');
    this.data = null;
    this.pointer = null;
    this.scheduled = 0;
    canvas.addEventListener('pointermove', (event) => this.point(event.offsetX));
    canvas.addEventListener('pointerleave', () => this.point(null));
    this.observer = new ResizeObserver(() => this.schedule());
    this.observer.observe(canvas);
    this.redraw = () => this.schedule();
    window.addEventListener('genwatch-theme', this.redraw);
  }

  destroy() {
    this.observer.disconnect();
    window.removeEventListener('genwatch-theme', this.redraw);
    cancelAnimationFrame(this.scheduled);
  }

  set(data) {
    this.data = data;
    this.schedule();
  }

  point(x) {
    this.pointer = x;
    this.schedule();
  }

  schedule() {
    cancelAnimationFrame(this.scheduled);
    this.scheduled = requestAnimationFrame(() => this.draw());
  }

  draw() {
    const { canvas, context, data } = this;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (!data || width < 40) return;
    fitCanvas(canvas, context, width, height);
    context.clearRect(0, 0, width, height);
    context.font = FONT;
    const box = { left: 52, right: width - 12, top: 10, bottom: height - 22 };
    const [low, high] = range(data);
    const x = (at) => box.left + ((at - data.from) / (data.to - data.from)) * (box.right - box.left);
    const y = (value) => box.bottom - ((value - low) / (high - low)) * (box.bottom - box.top);
    this.drawAxes(box, low, high, x, y);
    context.save();
    context.beginPath();
    context.rect(box.left, box.top, box.right - box.left, box.bottom - box.top);
    context.clip();
    for (const incident of data.incidents) this.drawIncident(box, incident, x);
    for (const rule of data.rules) this.drawRule(box, rule, y);
    this.drawLine(x, y);
    context.restore();
    for (const rule of data.rules) this.nameRule(box, rule, y);
    if (this.pointer !== null) this.drawPointer(box, x, y);
  }

  drawAxes(box, low, high, x, y) {
    const { context, data } = this;
    const palette = colours();
    context.strokeStyle = palette.grid;
    context.lineWidth = 1;
    context.fillStyle = palette.muted;
    context.textAlign = 'right';
    context.textBaseline = 'middle';
    context.beginPath();
    for (const tick of valueTicks(low, high, Math.max(2, (box.bottom - box.top) / 36))) {
      const at = Math.round(y(tick)) + 0.5;
      context.moveTo(box.left, at);
      context.lineTo(box.right, at);
      context.fillText(reading(tick), box.left - 8, at);
    }
    context.textAlign = 'center';
    context.textBaseline = 'alphabetic';
    const { ticks, text } = timeTicks(data.from, data.to, Math.max(2, (box.right - box.left) / 86));
    for (const tick of ticks) {
      const at = Math.round(x(tick)) + 0.5;
      context.moveTo(at, box.top);
      context.lineTo(at, box.bottom);
      if (at > box.left + 14 && at < box.right - 14) context.fillText(text(tick), at, box.bottom + 16);
    }
    context.stroke();
  }

  drawIncident(box, incident, x) {
    const { context, data } = this;
    const palette = colours();
    const rule = data.rules.find((one) => one.rule === incident.rule);
    if (!rule) return;
    const colour = incident.level === 3 ? palette.critical : palette.warning;
    const from = x(incident.raised ?? data.from);
    const to = x(incident.cleared ?? data.to);
    context.globalAlpha = 0.13;
    context.fillStyle = colour;
    context.fillRect(from, box.top, Math.max(1, to - from), box.bottom - box.top);
    context.globalAlpha = 0.5;
    const pixels = (ms) => (ms / (data.to - data.from)) * (box.right - box.left);
    if (incident.raised && rule.on_delay_ms) this.drawDelay(box, from - pixels(rule.on_delay_ms), from, colour);
    if (incident.cleared && rule.off_delay_ms) this.drawDelay(box, to - pixels(rule.off_delay_ms), to, colour);
    context.globalAlpha = 1;
    context.strokeStyle = colour;
    context.lineWidth = 1.5;
    context.beginPath();
    for (const at of [incident.raised && from, incident.cleared && to]) {
      if (!at) continue;
      context.moveTo(Math.round(at) + 0.5, box.top);
      context.lineTo(Math.round(at) + 0.5, box.bottom);
    }
    context.stroke();
  }

  drawDelay(box, from, to, colour) {
    if (to - from > 1.5) hatch(this.context, from, box.top, to - from, box.bottom - box.top, colour, 7);
  }

  drawRule(box, rule, y) {
    const { context } = this;
    const palette = colours();
    const colour = rule.level === 3 ? palette.critical : palette.warning;
    if (typeof rule.raise !== 'number') return;
    if (typeof rule.clear === 'number') {
      context.globalAlpha = 0.14;
      context.fillStyle = colour;
      const [top, bottom] = [y(rule.raise), y(rule.clear)].sort((a, b) => a - b);
      context.fillRect(box.left, top, box.right - box.left, bottom - top);
      context.globalAlpha = 1;
      this.rule(box, y(rule.clear), colour, [3, 4]);
    }
    this.rule(box, y(rule.raise), colour, []);
  }

  rule(box, at, colour, dashes) {
    const { context } = this;
    context.strokeStyle = colour;
    context.lineWidth = 1.5;
    context.setLineDash(dashes);
    context.beginPath();
    context.moveTo(box.left, Math.round(at) + 0.5);
    context.lineTo(box.right, Math.round(at) + 0.5);
    context.stroke();
    context.setLineDash([]);
  }

  nameRule(box, rule, y) {
    if (typeof rule.raise !== 'number') return;
    const below = rule.direction === 'below';
    const place = (at, under) => Math.max(box.top + 11, Math.min(box.bottom - 4, at + (under ? 13 : -5)));
    this.label(`raise ${below ? '<' : '>'} ${withUnit(rule.raise, this.data.field)}`, box.left + 6, place(y(rule.raise), below), rule.level);
    if (typeof rule.clear === 'number') this.label(`clear ${below ? '>' : '<'} ${withUnit(rule.clear, this.data.field)}`, box.left + 6, place(y(rule.clear), !below), rule.level);
  }

  label(text, x, y, level) {
    const { context } = this;
    const palette = colours();
    context.textAlign = 'left';
    context.textBaseline = 'alphabetic';
    context.strokeStyle = palette.surface;
    context.lineWidth = 4;
    context.lineJoin = 'round';
    context.strokeText(text, x, y);
    context.fillStyle = level === 3 ? palette['critical-text'] : palette['warning-text'];
    context.fillText(text, x, y);
  }

  drawLine(x, y) {
    const { context, data } = this;
    const { at, values } = data;
    const longest = Math.max(30000, (data.to - data.from) / 60);
    context.strokeStyle = colours().accent;
    context.lineWidth = 1.8;
    context.lineJoin = 'round';
    context.beginPath();
    let before = null;
    for (let place = 0; place < at.length; place += 1) {
      const value = values[place];
      if (typeof value !== 'number') {
        before = null;
        continue;
      }
      if (before === null || at[place] - before > longest) {
        context.moveTo(x(at[place]) - 0.5, y(value));
        context.lineTo(x(at[place]) + 0.5, y(value));
      } else {
        context.lineTo(x(at[place]), y(value));
      }
      before = at[place];
    }
    context.stroke();
  }

  drawPointer(box, x, y) {
    const { context, data } = this;
    const place = nearest(data.at, data.from + ((this.pointer - box.left) / (box.right - box.left)) * (data.to - data.from));
    if (place < 0 || typeof data.values[place] !== 'number') return;
    const palette = colours();
    const px = x(data.at[place]);
    const py = y(data.values[place]);
    if (px < box.left || px > box.right) return;
    context.strokeStyle = palette.muted;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(Math.round(px) + 0.5, box.top);
    context.lineTo(Math.round(px) + 0.5, box.bottom);
    context.stroke();
    context.fillStyle = palette.accent;
    context.beginPath();
    context.arc(px, py, 4, 0, 7);
    context.fill();
    tooltip(context, [`${withUnit(data.values[place], data.field)}`, timeOfDay(data.at[place])], px, py, box);
  }
}

function range({ values, rules, field }) {
  let low = Infinity;
  let high = -Infinity;
  const take = (value) => {
    if (typeof value !== 'number') return;
    low = Math.min(low, value);
    high = Math.max(high, value);
  };
  values.forEach(take);
  for (const rule of rules) {
    take(rule.raise);
    take(rule.clear);
  }
  if (low > high) [low, high] = [0, 1];
  const least = field === 'temperature' ? 10 : 20;
  const spare = Math.max((high - low) * 0.12, (least - (high - low)) / 2);
  return [low >= 0 ? Math.max(0, low - spare) : low - spare, high + spare];
}

function nearest(times, wanted) {
  let low = 0;
  let high = times.length - 1;
  if (high < 0) return -1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < wanted) low = middle + 1;
    else high = middle;
  }
  return low > 0 && wanted - times[low - 1] < times[low] - wanted ? low - 1 : low;
}

export function tooltip(context, lines, x, y, box) {
  const palette = colours();
  context.font = FONT;
  const width = Math.max(...lines.map((line) => context.measureText(line).width)) + 16;
  const height = lines.length * 16 + 10;
  const left = x + 12 + width > box.right ? x - 12 - width : x + 12;
  const top = Math.max(box.top, Math.min(box.bottom - height, y - height / 2));
  context.fillStyle = palette.surface;
  context.strokeStyle = palette.border;
  context.lineWidth = 1;
  context.beginPath();
  context.roundRect(Math.round(left) + 0.5, Math.round(top) + 0.5, width, height, 5);
  context.fill();
  context.stroke();
  context.fillStyle = palette.text;
  context.textAlign = 'left';
  context.textBaseline = 'alphabetic';
  lines.forEach((line, place) => context.fillText(line, left + 8, top + 17 + place * 16));
}

/** An empty canvas of its size on the screen; nothing if it is narrower than `least`. */
function begin(canvas, least) {
  const context = canvas.getContext('2d');
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (width < least) return null;
  fitCanvas(canvas, context, width, height);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** Alarms an hour as bars, against what an operator can manage. */
export function drawHours(canvas, hours, benchmark) {
  const blank = begin(canvas, 40);
  if (!blank) return;
  const { context, width, height } = blank;
  context.font = FONT;
  const palette = colours();
  const box = { left: 40, right: width - 8, top: 14, bottom: height - 22 };
  const highest = Math.max(benchmark.maximum * 1.35, ...hours.map((hour) => hour.raised * 1.1));
  const y = (value) => box.bottom - (value / highest) * (box.bottom - box.top);
  context.textAlign = 'right';
  context.textBaseline = 'middle';
  context.lineWidth = 1;
  context.strokeStyle = palette.grid;
  context.fillStyle = palette.muted;
  context.beginPath();
  for (const tick of valueTicks(0, highest, 4).filter((one) => Number.isInteger(one))) {
    context.moveTo(box.left, Math.round(y(tick)) + 0.5);
    context.lineTo(box.right, Math.round(y(tick)) + 0.5);
    context.fillText(count(tick), box.left - 8, y(tick));
  }
  context.stroke();
  const step = (box.right - box.left) / Math.max(1, hours.length);
  context.textAlign = 'center';
  context.textBaseline = 'alphabetic';
  const every = Math.ceil(46 / step);
  hours.forEach((hour, place) => {
    const left = box.left + step * place;
    context.fillStyle = hour.raised > benchmark.maximum ? palette.critical : hour.raised > benchmark.acceptable ? palette.warning : palette.accent;
    context.fillRect(left + step * 0.14, y(hour.raised), step * 0.72, box.bottom - y(hour.raised));
    context.fillStyle = palette.muted;
    if ((hours.length - 1 - place) % every === 0) context.fillText(shortTime(hour.hour), Math.min(left + step / 2, box.right - 14), box.bottom + 16);
  });
  // Where the lines are close, their labels stand side by side.
  const isClose = y(benchmark.acceptable) - y(benchmark.maximum) < 16;
  const aside = isClose ? context.measureText(`maximum ${benchmark.maximum}`).width + 14 : 0;
  for (const [value, text, tone, dashes, shift] of [[benchmark.maximum, 'maximum', 'critical', [], 0], [benchmark.acceptable, 'acceptable', 'warning', [4, 4], aside]]) {
    context.strokeStyle = palette[tone];
    context.lineWidth = 1.5;
    context.setLineDash(dashes);
    context.beginPath();
    context.moveTo(box.left, Math.round(y(value)) + 0.5);
    context.lineTo(box.right, Math.round(y(value)) + 0.5);
    context.stroke();
    context.setLineDash([]);
    context.textAlign = 'left';
    context.strokeStyle = palette.surface;
    context.lineWidth = 4;
    context.lineJoin = 'round';
    context.strokeText(`${text} ${value}`, box.left + 4 + shift, y(value) - 5);
    context.fillStyle = palette[`${tone}-text`];
    context.fillText(`${text} ${value}`, box.left + 4 + shift, y(value) - 5);
  }
}

/** A trend without axes; its foot is zero unless all values are far from it. */
export function drawSpark(canvas, values, tone = 'accent') {
  const blank = begin(canvas, 4);
  if (!blank) return;
  const { context, width, height } = blank;
  const highest = Math.max(10, ...values.map((value) => value ?? 0));
  const lowest = Math.min(highest, ...values.map((value) => value ?? 0));
  const foot = lowest > highest / 2 && highest > 1000 ? lowest * 0.999 : 0;
  const step = (width - 2) / Math.max(1, values.length - 1);
  context.beginPath();
  values.forEach((value, place) => {
    const x = 1 + step * place;
    const y = height - 2 - (Math.max(0, (value ?? 0) - foot) / (highest - foot)) * (height - 4);
    if (place) context.lineTo(x, y);
    else context.moveTo(x, y);
  });
  context.strokeStyle = colours()[tone];
  context.lineWidth = 1.5;
  context.stroke();
  context.lineTo(1 + step * (values.length - 1), height);
  context.lineTo(1, height);
  context.globalAlpha = 0.12;
  context.fillStyle = colours()[tone];
  context.fill();
  context.globalAlpha = 1;
}

export const fieldName = (field) => FIELDS[field]?.name ?? field;
export { FONT };
