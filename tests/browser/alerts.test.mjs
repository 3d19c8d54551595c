// An alert is on the page as soon as it is committed.

import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';

import { closePages, id, openBrowser, openDashboard, openPage, openView, percentile } from './page.mjs';
import { until, World } from './world.mjs';

const ALERTS = 30;
let world;
let browser;
let producer;
let committed;

before(async () => {
  world = await World.create('alerts');
  const workers = [world.worker('w1'), world.worker('w2')];
  [browser, producer] = await Promise.all([openBrowser(), world.producer(), world.dashboard()]);
  committed = world.alerts();
  world.simulator();
  await world.ready(workers);
});

afterEach(() => closePages(browser));

after(async () => {
  await browser?.close();
  await world?.end();
});

/** Notes in the page when each alert is first shown. */
function watchAlerts(page) {
  return page.evaluate((selector) => {
    const shown = new Map();
    window.shownAlerts = shown;
    const look = () => document.querySelectorAll(selector).forEach((row) => {
      if (!shown.has(row.dataset.id)) shown.set(row.dataset.id, Date.now());
    });
    look();
    new MutationObserver(look).observe(document.body, { subtree: true, childList: true });
  }, id('alarm-recent-row'));
}

test('an alert is shown within two seconds of its commit', { timeout: 90_000 }, async (t) => {
  const page = await openPage(browser);
  // The list: of alerts that come together, the line at the bottom shows only the newest.
  await openDashboard(page, world.url, '#/alarms');
  await watchAlerts(page);
  const ofReading = [];
  const ofCommit = [];
  for (let number = 0; number < ALERTS; number += 1) {
    const generator = `latency-${number}`;
    const sent = Date.now();
    producer.send(generator, { fuel: 100 });
    // The first one waits for the producer to connect.
    const alert = await until(`the alert of ${generator} is committed`, () => committed.find((one) => one.generatorID === generator), { every: 5 });
    const shown = await until(`the alert ${alert.id} is shown`, () => page.evaluate((one) => window.shownAlerts.get(one), alert.id), { seconds: 2, every: 10 });
    ofReading.push(shown - Math.max(sent, alert.at));
    ofCommit.push(Math.max(0, shown - alert.read));
  }
  for (const [what, times] of [['a reading to its alert on the page', ofReading], ['a committed alert, as another reader sees it, to the page', ofCommit]]) {
    t.diagnostic(`measured: from ${what}: p50 ${percentile(times, 0.5)} ms, p99 ${percentile(times, 0.99)} ms of ${times.length}`);
  }
  assert.ok(await page.locator(id('latest-alert')).getAttribute('data-id'));
  assert.deepEqual(page.problems, []);
});

test('the view of alarms counts what is active, and what was cleared goes', async () => {
  const page = await openPage(browser);
  await openDashboard(page, world.url);
  await openView(page, 'alarms');
  const generator = 'comes and goes';
  const active = page.locator(`${id('alarm-active-row')}[data-generator="${generator}"]`);
  producer.send(generator, { fuel: 100 });
  await active.waitFor({ timeout: 5000 });
  producer.send(generator, { fuel: 900 });
  await active.waitFor({ state: 'detached', timeout: 5000 });
  const recent = page.locator(`${id('alarm-recent-row')}[data-generator="${generator}"]`);
  await until('both events are listed', async () => (await recent.count()) === 2);
  assert.deepEqual(page.problems, []);
});

test('an alert stays one, however often the page is loaded', async () => {
  const page = await openPage(browser);
  await openDashboard(page, world.url, '#/alarms');
  const ids = await until('alerts are listed', async () => {
    const rows = await page.locator(id('alarm-recent-row')).evaluateAll((all) => all.map((row) => row.dataset.id));
    return rows.length >= ALERTS && rows;
  });
  assert.equal(new Set(ids).size, ids.length);
});
