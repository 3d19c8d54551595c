// Values as text for people.

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat('en', { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const upToTwo = new Intl.NumberFormat('en', { maximumFractionDigits: 2 });
const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const hourMinute = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' });
const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });

export const UNKNOWN = '–';

export const FIELDS = {
  temperature: { name: 'Coolant temperature', unit: '°C' },
  pressure: { name: 'Oil pressure', unit: 'kPa' },
  fuel: { name: 'Fuel', unit: 'L' },
  load: { name: 'Load', unit: '%' },
  power: { name: 'Power', unit: 'kW' },
  lat: { name: 'Latitude', unit: '°' },
  lon: { name: 'Longitude', unit: '°' },
};

const isNumber = (value) => typeof value === 'number' && Number.isFinite(value);

const escape = (text) => text.replace(/./gsu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);

/** Control and formatting characters of a foreign text become visible escapes, and so do blanks at its ends. */
export function visible(text) {
  return String(text).replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]|^\s+|\s+$/gu, escape);
}

export const count = (value) => (isNumber(value) ? whole.format(value) : UNKNOWN);

export const reading = (value) => (isNumber(value) ? upToTwo.format(value) : UNKNOWN);

export function withUnit(value, field) {
  if (!isNumber(value)) return UNKNOWN;
  const unit = FIELDS[field]?.unit;
  return unit ? `${upToTwo.format(value)}\u00a0${unit}` : upToTwo.format(value);
}

export function rate(value) {
  if (!isNumber(value)) return UNKNOWN;
  return `${value !== 0 && Math.abs(value) < 10 ? tenths.format(value) : whole.format(value)}/s`;
}

export const percent = (share) => (isNumber(share) ? `${whole.format(share * 100)}\u00a0%` : UNKNOWN);

export function compact(value) {
  if (value < 1000) return String(value);
  if (value < 10000) return `${Math.floor(value / 100) / 10}k`;
  return value < 1e6 ? `${Math.floor(value / 1000)}k` : `${Math.floor(value / 1e5) / 10}M`;
}

export function duration(ms) {
  if (!isNumber(ms)) return UNKNOWN;
  const positive = Math.max(0, ms);
  if (positive < 1000) return `${whole.format(positive)}\u00a0ms`;
  if (positive < 9950) return `${tenths.format(positive / 1000)}\u00a0s`;
  const seconds = Math.round(positive / 1000);
  if (seconds < 60) return `${seconds}\u00a0s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return seconds % 60 ? `${minutes}\u00a0min ${seconds % 60}\u00a0s` : `${minutes}\u00a0min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours}\u00a0h ${minutes % 60}\u00a0min` : `${hours}\u00a0h`;
  return `${whole.format(hours / 24)}\u00a0days`;
}

/** How long ago, without the parts that change every second beyond a minute. */
export function age(at, now) {
  if (!isNumber(at)) return UNKNOWN;
  const seconds = Math.max(0, Math.floor((now - at) / 1000));
  if (seconds < 1) return 'now';
  if (seconds < 60) return `${seconds}\u00a0s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}\u00a0min ago`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)}\u00a0h ago`;
  return `${Math.floor(seconds / 86400)}\u00a0days ago`;
}

/** How long it has lasted, as coarse as `age`. */
export function lasting(since, now) {
  const text = age(since, now);
  return text === 'now' ? '0\u00a0s' : text.replace(' ago', '');
}

export const timeOfDay = (at) => (isNumber(at) ? clock.format(at) : UNKNOWN);
export const shortTime = (at) => hourMinute.format(at);

export function moment(at, now) {
  if (!isNumber(at)) return UNKNOWN;
  const sameDay = new Date(at).toDateString() === new Date(now).toDateString();
  return sameDay ? clock.format(at) : `${day.format(at)} ${clock.format(at)}`;
}

export function zone() {
  const name = Intl.DateTimeFormat().resolvedOptions().timeZone || 'local';
  const minutes = -new Date().getTimezoneOffset();
  const sign = minutes < 0 ? '\u2212' : '+';
  const hours = Math.floor(Math.abs(minutes) / 60);
  const rest = Math.abs(minutes) % 60;
  return `${name}, UTC${sign}${hours}${rest ? `:${String(rest).padStart(2, '0')}` : ''}`;
}

/** When the lag will be gone. */
export function eta(item) {
  if (item.eta_never) return 'never at this rate';
  if (!isNumber(item.eta_seconds)) return UNKNOWN;
  return item.eta_seconds < 1 ? 'caught up' : `in ${duration(Math.max(1000, item.eta_seconds * 1000))}`;
}

export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

export function capital(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : text;
}

const LEVELS = { emergency: 3, fatal: 3, critical: 3, high: 3, error: 3, warning: 2, warn: 2, medium: 2, notice: 1, info: 1, low: 1, minor: 1 };

/** 3 critical, 2 warning, 1 notice, 0 none; a severity that the rules made up counts as a warning. */
export function level(severity) {
  return severity ? LEVELS[String(severity).toLowerCase()] ?? 2 : 0;
}

export const LEVEL_NAMES = ['normal', 'notice', 'warning', 'critical'];

export const levelName = (severity) => LEVEL_NAMES[level(severity)];

export const generatorLink = (id) => `#/generator/${encodeURIComponent(id)}`;
