// Chromium, and pages that note what goes wrong in them.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import path from 'node:path';

import { out, until } from './world.mjs';

const tools = createRequire(path.join(out, 'tools', 'package.json'));
const { chromium } = tools('playwright-core');
const axe = tools('axe-core').source;

const ARGUMENTS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync'];

export const VIEWS = ['flow', 'partitions', 'fleet', 'alarms'];
export const id = (name) => `[data-testid="${name}"]`;

export function openBrowser() {
  return chromium.launch({ executablePath: process.env.GENWATCH_CHROMIUM, args: ARGUMENTS });
}

/** A page in a context of its own, with `problems`: what its console, its scripts and its policy complain of. */
export async function openPage(browser, { theme = 'light', width = 1440, height = 900 } = {}) {
  const context = await browser.newContext({ colorScheme: theme, viewport: { width, height }, reducedMotion: 'reduce' });
  context.setDefaultTimeout(20_000);
  const page = await context.newPage();
  page.problems = [];
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) page.problems.push(`${message.type()}: ${message.text()}`);
  });
  page.on('pageerror', (error) => page.problems.push(`exception: ${error.stack || error}`));
  page.on('dialog', (dialog) => {
    page.problems.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  await page.addInitScript(() => document.addEventListener('securitypolicyviolation', (event) => {
    console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`);
  }));
  return page;
}

/** Between tests: a page that is open keeps being fed. */
export const closePages = (browser) => Promise.all(browser.contexts().map((context) => context.close()));

export function isLive(page) {
  return page.locator(`${id('connection')}[data-state="live"]`).waitFor();
}

export async function openView(page, name) {
  await page.locator(id(`nav-${name}`)).click();
  await page.locator(id(`view-${name}`)).waitFor();
}

export async function openDashboard(page, url, hash = '') {
  await page.goto(`${url}/${hash}`);
  // What is waited for would never come.
  assert.deepEqual(page.problems.filter((one) => one.startsWith('exception')), []);
  await isLive(page);
}

/** All rules of axe on what is shown now: WCAG 2 A and AA, and its best practices. */
export async function accessibility(page) {
  if (!(await page.evaluate(() => 'axe' in window))) await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  return violations.map((one) => `${one.id} (${one.impact}): ${one.help}: ${one.nodes.slice(0, 3).map((node) => node.html.slice(0, 200)).join(' | ')}`);
}

/** The texts of elements. */
export const texts = (page, selector) => page.locator(selector).allInnerTexts();

/** Waits until what `look` returns is another. */
export async function changes(what, look, options) {
  const before = JSON.stringify(await look());
  await until(`${what} changes from ${before.slice(0, 200)}`, async () => JSON.stringify(await look()) !== before, options);
}

export function percentile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  assert.ok(sorted.length > 0);
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)];
}
