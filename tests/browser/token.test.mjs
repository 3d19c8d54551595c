// Beyond loopback the dashboard asks for a token.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { get } from 'node:http';
import path from 'node:path';
import { after, afterEach, before, test } from 'node:test';

import { accessibility, closePages, isLive, openBrowser, openPage } from './page.mjs';
import { freePort, out, until, World } from './world.mjs';

const TOKEN = 'correct horse battery staple';
const file = path.join(out, 'token');
let world;
let browser;
let url;

before(async () => {
  writeFileSync(file, `${TOKEN}\n`, { mode: 0o600 });
  world = await World.create('token', { partitions: 1 });
  await world.dashboard(['--http-token-file', file], '0.0.0.0');
  url = world.url;
  browser = await openBrowser();
});

afterEach(() => closePages(browser));

after(async () => {
  await browser?.close();
  await world?.end();
});

test('beyond loopback the dashboard does not start without a token', async () => {
  const program = world.start('open', 'dashboard', ['--http', `0.0.0.0:${await freePort()}`]);
  await until('it has ended', () => program.end, { seconds: 5 });
  assert.equal(program.end.code, 2, program.said());
  assert.match(program.said(), /token/);
});

test('without the token there is neither data nor page', async () => {
  for (const route of ['/assets/app.js', '/api/partitions', '/api/fleet', '/api/alerts', '/api/lineage', '/api/time', '/api/generators/x', '/events']) {
    const answer = await fetch(url + route, { redirect: 'manual' });
    assert.equal(answer.status, 401, route);
    assert.equal(typeof (await answer.json()).error, 'string', route);
  }
  for (const authorization of ['Bearer', 'Bearer ', 'Bearer wrong', `Bearer ${TOKEN}x`, `Bearer ${TOKEN.slice(0, -1)}`, `Basic ${btoa(`:${TOKEN}`)}`]) {
    assert.equal((await fetch(`${url}/api/time`, { headers: { authorization } })).status, 401, authorization);
  }
  const page = await fetch(url, { redirect: 'manual' });
  assert.equal(page.status, 303);
  assert.equal(page.headers.get('location'), '/login');
});

test('programs give the token as a bearer', async () => {
  const answer = await fetch(`${url}/api/time`, { headers: { authorization: `Bearer ${TOKEN}` } });
  assert.equal(answer.status, 200);
});

test('a person is asked for the token, a wrong one is refused, the right one opens the page', async () => {
  const page = await openPage(browser);
  await page.goto(`${url}/#/fleet`);
  assert.equal(new URL(page.url()).pathname, '/login');
  for (const theme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme: theme });
    assert.deepEqual(await accessibility(page), [], theme);
  }

  await page.locator('input[name=token]').fill('wrong');
  await page.keyboard.press('Enter');
  await page.locator('[role=alert]').filter({ hasText: /token/i }).waitFor();
  assert.equal(new URL(page.url()).pathname, '/login');
  assert.deepEqual(await page.context().cookies(), []);

  await page.locator('input[name=token]').fill(TOKEN);
  await page.keyboard.press('Enter');
  await page.waitForURL((now) => now.pathname === '/');
  await isLive(page);

  const [cookie, ...others] = await page.context().cookies();
  assert.deepEqual(others, []);
  assert.deepEqual([cookie.httpOnly, cookie.sameSite], [true, 'Strict']);
  assert.ok(!decodeURIComponent(cookie.value).includes(TOKEN), 'the cookie is not the token itself');
  assert.equal(await page.evaluate(() => document.cookie), '');
  assert.deepEqual(page.problems.filter((problem) => !problem.includes('401')), []);
});

test('the cookie of another is no key', async () => {
  for (const cookie of ['genwatch=', 'genwatch=x', `genwatch=${encodeURIComponent(TOKEN)}x`]) {
    assert.equal((await fetch(`${url}/api/time`, { headers: { cookie } })).status, 401, cookie);
  }
});

test('another site can neither frame the page nor log in here', async () => {
  const login = await fetch(`${url}/login`);
  const policy = login.headers.get('content-security-policy');
  for (const part of ["default-src 'none'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'", "script-src 'self'"]) {
    assert.ok(policy.includes(part), `${part} is not in ${policy}`);
  }
  assert.ok(!policy.includes('unsafe'), policy);
  assert.equal(login.headers.get('x-content-type-options'), 'nosniff');
});

test('on loopback no token is asked for, and a foreign name that points here is not answered', async () => {
  const here = await World.create('loopback', { partitions: 1 });
  try {
    await here.dashboard();
    const status = (host) => new Promise((resolve, reject) => {
      get(`${here.url}/api/time`, { headers: { host } }, (answer) => resolve(answer.resume().statusCode)).on('error', reject);
    });
    assert.equal(await status(`127.0.0.1:${here.port}`), 200);
    assert.equal(await status(`localhost:${here.port}`), 200);
    for (const host of ['evil.example', `evil.example:${here.port}`, `127.0.0.1.evil.example:${here.port}`]) {
      assert.ok(await status(host) >= 400, host);
    }
  } finally {
    await here.end();
  }
});
