// Prints results as cargo's test harness does, which scripts/test counts.

export default async function* reporter(events) {
  let passed = 0;
  let failed = 0;
  let ignored = 0;
  const failures = [];
  const began = Date.now();
  for await (const { type, data } of events) {
    if (type === 'test:diagnostic' && data.message.startsWith('measured: ')) yield `${data.message}\n`;
    if (type === 'test:stdout' || type === 'test:stderr') yield data.message;
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    // A file, or a group, isn't a test; but one that fails by itself has to count.
    const isGroup = data.details?.type === 'suite' || data.name.endsWith('.mjs');
    if (isGroup && (type === 'test:pass' || data.details.error?.failureType === 'subtestsFailed')) continue;
    const seconds = (data.details.duration_ms / 1000).toFixed(1);
    if (data.skip !== undefined || data.todo !== undefined) {
      ignored += 1;
      yield `test ${data.name} ... ignored\n`;
    } else if (type === 'test:pass') {
      passed += 1;
      yield `test ${data.name} ... ok (${seconds} s)\n`;
    } else {
      failed += 1;
      yield `test ${data.name} ... FAILED (${seconds} s)\n`;
      const error = data.details.error?.cause ?? data.details.error;
      failures.push(`---- ${data.name}\n${error?.stack ?? error}\n`);
    }
  }
  if (failures.length > 0) yield `\nfailures:\n\n${failures.join('\n')}\n`;
  const verdict = failed > 0 ? 'FAILED' : 'ok';
  const seconds = ((Date.now() - began) / 1000).toFixed(2);
  yield `\ntest result: ${verdict}. ${passed} passed; ${failed} failed; ${ignored} ignored; 0 measured; 0 filtered out; finished in ${seconds}s\n`;
}
