// What a person sees of a healthy system, on every view.

import assert from 'node:assert/strict';
import path from 'node:path';
import { after, afterEach, before, test } from 'node:test';

import { accessibility, changes, closePages, id, isLive, openBrowser, openDashboard, openPage, openView, texts, VIEWS } from './page.mjs';
import { isName, out, until, World } from './world.mjs';

const FIRST_PAGE_BYTES = 150_000;
let world;
let browser;
let workers;
let downsampler;
let producer;

before(async () => {
  world = await World.create('basics', { partitions: 12 });
  workers = [world.worker('w1'), world.worker('w2'), world.worker('w3')];
  downsampler = world.downsampler();
  [browser, producer] = await Promise.all([openBrowser(), world.producer(), world.dashboard(), world.sink(), world.everythingByMqtt({ generators: 200, rate: 600 })]);
  await world.ready(workers);
});

afterEach(() => closePages(browser));

after(async () => {
  await browser?.close();
  await world?.end();
});

test('the page loads without an error, small, and is soon usable', async (t) => {
  const page = await openPage(browser);
  const session = await page.context().newCDPSession(page);
  await session.send('Network.enable');
  const sizes = new Map();
  const urls = new Map();
  session.on('Network.requestWillBeSent', ({ requestId, request }) => urls.set(requestId, new URL(request.url).pathname));
  session.on('Network.dataReceived', ({ requestId, encodedDataLength }) => sizes.set(requestId, (sizes.get(requestId) ?? 0) + encodedDataLength));
  session.on('Network.loadingFinished', ({ requestId, encodedDataLength }) => sizes.set(requestId, encodedDataLength));

  const began = Date.now();
  await page.goto(world.url);
  await page.locator(id('flow-node')).first().waitFor();
  await isLive(page);
  const usable = Date.now() - began;
  await page.waitForLoadState('load');

  const files = [...sizes].filter(([request]) => !/^\/(events|api)/.test(urls.get(request)));
  const bytes = files.reduce((sum, [, size]) => sum + size, 0);
  t.diagnostic(`measured: the first page is usable after ${usable} ms, by ${files.length} files of ${(bytes / 1000).toFixed(1)} kB`);
  assert.ok(files.length > 3 && bytes > 5000, `${files.length} files`);
  assert.ok(bytes <= FIRST_PAGE_BYTES, `${bytes} bytes: ${files.map(([request, size]) => `${urls.get(request)} ${size}`).join(', ')}`);

  for (const view of VIEWS) await openView(page, view);
  assert.deepEqual(page.problems, []);
});

test('the page asks nobody but the dashboard', async () => {
  const page = await openPage(browser);
  const others = [];
  page.on('request', (request) => {
    if (new URL(request.url()).origin !== world.url) others.push(request.url());
  });
  await openDashboard(page, world.url);
  for (const view of VIEWS) await openView(page, view);
  assert.deepEqual(others, []);
});

test('values move on every view', async () => {
  const page = await openPage(browser);
  await openDashboard(page, world.url);
  for (const view of ['flow', 'partitions', 'fleet']) {
    await openView(page, view);
    await changes(`the view ${view}`, () => texts(page, id(`view-${view}`)), { seconds: 10 });
  }
  const row = () => texts(page, `${id('partition-row')}[data-partition="0"]`);
  await openView(page, 'partitions');
  await changes('the row of a partition', row, { seconds: 10 });
});

test('the flow shows each part of the system, live', async () => {
  const page = await openPage(browser);
  await openDashboard(page, world.url);
  const { nodes, edges } = await until('all parts have reported', async () => {
    const now = await world.api('/api/lineage');
    return ['mqtt', 'bridge', 'sink', 'store'].every((kind) => now.nodes.some((node) => node.kind === kind && node.status === 'ok')) && now;
  });
  const byName = (suffix) => nodes.find((node) => node.name.endsWith(suffix));
  const live = [byName(world.topic), byName('_alerts'), byName('_state'), ...workers.map((worker) => nodes.find((node) => node.kind === 'worker' && isName(node.name, worker)))];
  for (const node of live) {
    assert.ok(node, `missing in ${nodes.map((one) => one.name).join(', ')}`);
    await page.locator(`${id('flow-node')}[data-node="${node.id}"][data-status="ok"]`).waitFor({ timeout: 10_000 });
  }
  await until('no part has a problem', async () => (await page.locator(`${id('flow-node')}:is([data-status="error"], [data-status="warn"])`).count()) === 0);
  await until('all parts and edges are drawn', async () => (await page.locator(id('flow-node')).count()) === nodes.length && (await page.locator(id('flow-edge')).count()) === edges.length);
  for (const node of nodes) assert.ok(Number.isInteger(node.rank), `${node.id} has a column`);
  await until('each worker gets readings', async () => {
    const now = await world.api('/api/lineage');
    return workers.every((worker) => now.edges.some((edge) => isName(edge.to, worker) && edge.rate > 0));
  });
});

test('partitions and workers are those that there are', async () => {
  const page = await openPage(browser);
  await openDashboard(page, world.url, '#/partitions');
  await until('twelve partitions', async () => (await page.locator(id('partition-row')).count()) === 12);
  const names = await page.locator(id('worker-row')).evaluateAll((rows) => rows.map((row) => row.dataset.worker));
  for (const worker of workers) assert.ok(names.some((name) => isName(name, worker)), names.join(', '));
  const owners = (await page.locator(id('timeline')).getAttribute('data-owners')).split(',');
  assert.equal(owners.length, workers.length, owners.join(', '));
});

test('search finds a generator and opens it with live values', async () => {
  const page = await openPage(browser);
  await openDashboard(page, world.url, '#/fleet');
  const generator = 'generator17';
  await page.locator(id('search')).fill(generator);
  await result(page, generator).getByRole('link').click();
  await page.locator(id('view-generator')).waitFor();
  assert.equal(new URL(page.url()).hash, `#/generator/${generator}`);
  await changes('its values', () => texts(page, id('generator-values')), { seconds: 15 });
  assert.match(await page.locator(id('generator-last-seen')).innerText(), /now|\d+\ss ago/);
  assert.deepEqual(page.problems, []);
});

/** The row of a generator in the list of the fleet. */
const result = (page, generator) => rowOf(page, id('search-results') + ' tr', generator);

/** A row by its generator. XPath, as ids may hold anything: it has no escapes. */
function rowOf(page, rows, generator) {
  const text = `concat('',${generator.split("'").map((part) => `'${part}'`).join(`,"'",`)})`;
  return page.locator(rows).and(page.locator(`xpath=//tr[@data-generator=${text}]`));
}

// What a producer may call a generator. Each is shown as what it is, and none does anything.
const HOSTILE = [
  '<script>document.title="owned"</script>',
  '"><img src=x onerror="document.title=\'owned\'">',
  "'; DROP TABLE generators; --",
  '\u001b[31mred\u001b]0;owned\u0007',
  '\u202Edrawkcab\u202C',
  'x'.repeat(256),
  '../../etc/passwd?a=b&c#d%2F%zz',
  '__proto__',
  'ein Gerät 発電機 🔌',
  'javascript:alert(1)',
  ' ',
];

test('a hostile id is nothing but text', { timeout: 90_000 }, async () => {
  for (const name of HOSTILE) producer.send(name, { fuel: 100 });
  await until('all of them have their alarm', async () => {
    const known = new Set((await world.api('/api/alerts')).active.map((alert) => alert.generatorID));
    return HOSTILE.every((name) => known.has(name));
  }, { seconds: 30 });

  const page = await openPage(browser);
  await openDashboard(page, world.url, '#/alarms');
  const escaped = (name) => name.replace(/[\p{Cc}\p{Cf}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
  const isShown = (name, text) => (name.trim() ? text.includes(escaped(name)) : text.trim() !== '');
  for (const name of HOSTILE) {
    const row = rowOf(page, id('alarm-active-row'), name);
    await row.waitFor({ timeout: 5000 });
    const text = await row.getByRole('link').textContent();
    assert.ok(isShown(name, text), `${JSON.stringify(name)} as ${JSON.stringify(text)}`);
  }
  for (const name of HOSTILE) {
    await page.goto(`${world.url}/#/generator/${encodeURIComponent(name)}`);
    await page.locator(id('view-generator')).waitFor();
    await until(`the values of ${JSON.stringify(name)}`, async () => (await page.locator(id('generator-values')).innerText()).includes('100'));
    assert.ok(isShown(name, await page.locator('h1').textContent()), await page.locator('h1').textContent());
  }
  await openView(page, 'fleet');
  for (const name of HOSTILE) {
    await page.locator(id('search')).fill(name);
    await result(page, name).waitFor({ timeout: 8000 });
    assert.ok(isShown(name, await result(page, name).getByRole('link').textContent()), name);
  }
  assert.equal(await page.locator('main script, main img, main iframe, [onerror]').count(), 0);
  assert.doesNotMatch(await page.title(), /owned/);
  assert.deepEqual(page.problems, []);
});

test('the keyboard reaches everything', async () => {
  const page = await openPage(browser);
  await openDashboard(page, world.url);
  const focused = () => page.evaluate(() => ({ testid: document.activeElement.dataset.testid, text: document.activeElement.textContent, id: document.activeElement.id }));
  const tabTo = async (what, wanted) => {
    for (let presses = 0; presses < 60; presses += 1) {
      await page.keyboard.press('Tab');
      if (wanted(await focused())) return;
    }
    assert.fail(`Tab doesn't reach ${what}`);
  };

  await page.keyboard.press('Tab');
  assert.match((await focused()).text, /skip/i);
  const skip = await page.locator('.skip').boundingBox();
  assert.ok(skip.y >= 0 && skip.x >= 0, 'the skip link is seen while it has the focus');
  await page.keyboard.press('Enter');
  assert.equal((await focused()).id, 'main');

  for (const view of VIEWS) {
    await page.evaluate(() => { document.activeElement.blur(); document.querySelector('.skip').focus(); });
    await tabTo(`nav-${view}`, (one) => one.testid === `nav-${view}`);
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.notEqual(outline, 'none', `the focus is seen on nav-${view}`);
    await page.keyboard.press('Enter');
    await page.locator(id(`view-${view}`)).waitFor();
  }

  await openView(page, 'fleet');
  await page.evaluate(() => document.querySelector('.skip').focus());
  await tabTo('the map', (one) => one.testid === 'map');
  await tabTo('the search', (one) => one.testid === 'search');
  await page.keyboard.type('generator5');
  await result(page, 'generator5').waitFor();
  await tabTo('the generator', (one) => one.text === 'generator5');
  await page.keyboard.press('Enter');
  await page.locator(id('view-generator')).waitFor();
  assert.deepEqual(page.problems, []);
});

test('the map moves by keys', async () => {
  const page = await openPage(browser);
  await openDashboard(page, world.url, '#/fleet');
  const map = page.locator(id('map'));
  await map.waitFor();
  // In the past nothing else moves it.
  await page.locator(id('time-slider')).focus();
  await page.keyboard.press('Home');
  await page.locator(id('time-banner')).waitFor();
  await until('the map stands still', async () => (await map.screenshot()).equals(await map.screenshot()));
  await map.focus();
  for (const key of ['+', '+', 'ArrowLeft', 'ArrowUp', '-']) {
    const before = await map.screenshot();
    await page.keyboard.press(key);
    await until(`the map answers ${key}`, async () => !before.equals(await map.screenshot()), { seconds: 5 });
  }
});

test('both themes are whole: axe finds nothing on any view', { timeout: 120_000 }, async () => {
  const hashes = { flow: '', partitions: '#/partitions', fleet: '#/fleet', alarms: '#/alarms', generator: '#/generator/generator17' };
  const found = [];
  for (const theme of ['light', 'dark']) {
    const page = await openPage(browser, { theme });
    for (const [view, hash] of Object.entries(hashes)) {
      await openDashboard(page, world.url, hash);
      await page.locator(id(`view-${view}`)).waitFor();
      assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), theme);
      await shows(page, view);
      await page.screenshot({ path: path.join(out, `${view}-${theme}.png`) });
      await page.evaluate(() => document.querySelectorAll('details').forEach((one) => { one.open = true; }));
      found.push(...(await accessibility(page)).map((one) => `${view}, ${theme}: ${one}`));
    }
    found.push(...page.problems);
  }
  assert.deepEqual(found, []);
});

/** Waits until a view has its data. */
async function shows(page, view) {
  const first = { flow: id('flow-edge'), partitions: id('partition-row'), fleet: id('map'), alarms: id('alarm-recent-row'), generator: id('generator-values') };
  await page.locator(first[view]).first().waitFor({ state: 'attached' });
  if (view === 'fleet') await page.waitForFunction(() => window.genwatchDebug.generators() > 0);
}

test('the theme follows the system, and the choice of a person stays', async () => {
  const page = await openPage(browser, { theme: 'dark' });
  await openDashboard(page, world.url);
  const theme = () => page.evaluate(() => document.documentElement.dataset.theme);
  const colours = () => page.evaluate(() => `${getComputedStyle(document.documentElement).backgroundColor} ${getComputedStyle(document.body).color}`);
  const dark = await colours();
  assert.equal(await theme(), 'dark');
  await page.locator(id('theme-toggle')).click();
  assert.equal(await theme(), 'light');
  assert.notEqual(await colours(), dark);
  await page.reload();
  assert.equal(await theme(), 'light');
});

test('a narrow window has no sideways scrolling', async () => {
  const page = await openPage(browser, { width: 390, height: 800 });
  await openDashboard(page, world.url);
  for (const view of VIEWS) {
    await openView(page, view);
    const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
    assert.ok(wide <= room, `${view} is ${wide} wide in ${room}`);
  }
});

test('the time machine shows the past and returns', { timeout: 60_000 }, async () => {
  const generator = 'late alarm';
  producer.send(generator);
  await until('it is known', async () => (await world.api(`/api/generators/${encodeURIComponent(generator)}`)).last);
  const { now } = await world.api('/api/time');
  await until('time has passed', async () => (await world.api('/api/time')).now > now + 3000);
  producer.send(generator, { fuel: 50 });
  const find = async (at) => (await world.api(`/api/fleet${at ? `?at=${at}` : ''}`)).generators.find((one) => one.generatorID === generator);
  await until('it has an alarm', async () => (await find()).alarm);
  const past = await find(now + 1000);
  assert.deepEqual([past.alarm ?? null, past.fuel], [null, 901]);

  const page = await openPage(browser);
  await openDashboard(page, world.url, '#/fleet');
  const banner = page.locator(id('time-banner'));
  assert.equal(await banner.isVisible(), false);
  await page.locator(id('search')).fill(generator);
  const fuel = async (value) => until(`its fuel is ${value}`, async () => (await result(page, generator).innerText()).split(/\s+/).includes(value), { seconds: 10 });
  await fuel('50');

  const slider = page.locator(id('time-slider'));
  const first = Number(await slider.getAttribute('min'));
  assert.ok(now - first < 10 * 60_000, `the slider begins with what is kept: ${(now - first) / 1000} s ago`);
  await slider.fill(String(first + Math.ceil((now + 1000 - first) / 1000) * 1000));
  await banner.waitFor();
  assert.match(await banner.innerText(), /\d\d:\d\d:\d\d, not now/);
  await fuel('901');
  assert.match(await result(page, generator).innerText(), /None/);
  await banner.getByRole('button').click();
  await banner.waitFor({ state: 'hidden' });
  await fuel('50');

  await slider.focus();
  await page.keyboard.press('Home');
  await banner.waitFor();
  await page.keyboard.press('End');
  await banner.waitFor({ state: 'hidden' });
  assert.deepEqual(page.problems, []);
});

// Last: by now a minute is over.
test('the flow leads from readings over aggregates to the database', { timeout: 150_000 }, async () => {
  const [readings, aggregates] = [`topic:${world.topic}`, `topic:${world.topic}_1m`];
  const { sink } = await until('aggregates flow', async () => {
    const { nodes, edges } = await world.api('/api/lineage');
    const one = nodes.find((node) => node.kind === 'downsample' && isName(node.name, downsampler));
    const to = nodes.find((node) => node.kind === 'sink');
    const flows = (from, into) => edges.some((edge) => edge.from === from && edge.to === into && edge.rate > 0);
    const taken = edges.find((edge) => edge.from === readings && edge.to === one.id);
    return one.status === 'ok' && taken.lag > 0 && taken.time_lag_ms > 0 && flows(readings, one.id) && flows(one.id, aggregates) && flows(aggregates, to.id) && { sink: to };
  }, { seconds: 120 });

  const page = await openPage(browser);
  await openDashboard(page, world.url);
  const card = page.locator(`${id('flow-node')}[data-node="${aggregates}"][data-status="ok"]`);
  await until('the topic of aggregates has a rate', async () => /[1-9].*\/s/.test(await card.locator('.node-rate').innerText()));
  await until('the downsampler has a rate', async () => /[1-9]\d* ?\/s/.test(await page.locator(`${id('flow-node')}[data-node^="downsample:"] .node-rate`).innerText()));
  for (const [from, to] of [[readings, `downsample:`], ['downsample:', aggregates], [aggregates, sink.id]]) {
    assert.equal(await page.locator(`${id('flow-edge')}[data-from^="${from}"][data-to^="${to}"]`).count(), 1, `an edge from ${from} to ${to}`);
  }

  await openView(page, 'partitions');
  const row = page.locator(`${id('worker-row')}[data-kind="downsample"]`);
  assert.ok(isName(await row.getAttribute('data-worker'), downsampler));
  assert.match(await row.innerText(), /downsample[\s\S]*0, 1, 2, 3/);
  const { partitions } = await world.api('/api/partitions');
  for (const { owner } of partitions) assert.ok(workers.some((worker) => isName(owner, worker)), owner);
  assert.deepEqual(page.problems, []);
});

test('what newer versions say of themselves has boxes too, and nothing breaks', { timeout: 60_000 }, async () => {
  const reports = await world.producer(`${world.group}_workers`);
  const now = Date.now();
  const said = { at: now, since: now, every: 600_000, version: '9.0', host: 'h', rate: 7.5, busy: 0, cpu: 0, records: 1, partitions: [] };
  const database = `http://127.0.0.1:${world.database.address().port}`;
  reports.write('source-1', { worker: 'source-1', kind: 'source', peer: database, to: 'rows_of_a_query', ...said });
  reports.write('mirror-1', { worker: 'mirror-1', kind: '<b>mirror', to: `${world.topic}_alerts`, ...said });

  const page = await openPage(browser);
  await openDashboard(page, world.url);
  for (const name of ['source:source-1', 'topic:rows_of_a_query', 'process:mirror-1']) await page.locator(`${id('flow-node')}[data-node="${name}"]`).waitFor();
  assert.match(await page.locator(`${id('flow-node')}[data-node="process:mirror-1"]`).innerText(), /<b>mirror/);
  const place = async (name) => (await page.locator(`${id('flow-node')}[data-node="${name}"]`).boundingBox()).x;
  assert.ok(await place('topic:rows_of_a_query') < await place('source:source-1') && await place('source:source-1') < await place(`store:${database}`), 'the way back leads back');
  const edge = page.locator(`${id('flow-edge')}[data-from="source:source-1"][data-to="topic:rows_of_a_query"] .edge-line`);
  const [, fromX, toX] = /^M([\d.]+).* ([\d.]+) [\d.]+$/.exec(await edge.getAttribute('d'));
  assert.ok(Number(toX) < Number(fromX), await edge.getAttribute('d'));
  await page.screenshot({ path: path.join(out, 'flow-loop.png') });
  assert.deepEqual(await accessibility(page), []);
  await openView(page, 'partitions');
  assert.match(await page.locator(`${id('worker-row')}[data-worker="mirror-1"]`).innerText(), /<b>mirror/);
  assert.equal(await page.locator('main b').count(), 0);
  await openView(page, 'flow');
  assert.deepEqual(page.problems, []);
});

test('a connector of Kafka Connect has a box with its lag, and says when none of its tasks runs', { timeout: 120_000 }, async () => {
  const name = `s3-${process.pid}`;
  const task = world.connector(name);
  const page = await openPage(browser);
  await openDashboard(page, world.url);
  const card = page.locator(`${id('flow-node')}[data-node="connector:${name}"]`);
  await card.filter({ hasText: 'live' }).waitFor({ timeout: 45_000 });
  assert.match(await card.innerText(), /Kafka Connect[\s\S]*s3-/);
  await until('it has a rate', async () => /[1-9]\d* ?\/s/.test(await card.locator('.node-rate').innerText()));
  assert.equal(await page.locator(`${id('flow-edge')}[data-from="topic:${world.topic}"][data-to="connector:${name}"]`).count(), 1);
  await page.screenshot({ path: path.join(out, 'flow-connector.png'), fullPage: true });
  assert.deepEqual(await accessibility(page), []);
  await task.stop();
  await card.filter({ hasText: 'no task runs' }).waitFor({ timeout: 45_000 });
  await page.getByRole('region', { name: 'What needs attention' }).getByText(name).waitFor();
  await page.screenshot({ path: path.join(out, 'flow-connector-stopped.png'), fullPage: true });
  assert.deepEqual(page.problems, []);
});
