// Runs the tests of this folder and closes with the counts that the test command reads.
//
// In: where the programs are, and where screenshots and logs may be left. A run without tests fails.

import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { parseArgs } from 'node:util';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import path from 'node:path';

const USAGE = 'Usage: node run.js --programs DIR --chromium FILE --out DIR [--only TEXT]';
// The whole path has a dozen pages, each looked at four times, on a machine that may be busy.
const TEST_MINUTES_MAX = 10;

function readOptions() {
    const options = {
        programs: { type: 'string' },
        chromium: { type: 'string' },
        out: { type: 'string' },
        only: { type: 'string', default: '' },
    };
    try {
        const { values } = parseArgs({ options, strict: true });
        if (values.programs && values.chromium && values.out) return values;
    } catch (error) {
        console.error(error.message);
    }
    console.error(USAGE);
    process.exit(2);
}

const { programs, chromium, out, only } = readOptions();
const folder = path.join(path.dirname(fileURLToPath(import.meta.url)), 'tests');
const files = readdirSync(folder).filter((name) => name.endsWith('.test.js') && name.includes(only));
const counts = { passed: 0, failed: 0 };

const stream = run({
    files: files.map((name) => path.join(folder, name)),
    argv: ['--programs', path.resolve(programs), '--chromium', path.resolve(chromium), '--out', path.resolve(out)],
    // Two cores carry Chromium and five programs: one file at a time.
    concurrency: 1,
    // What a failed test left running does not hold up the others.
    execArgv: ['--test-force-exit'],
    timeout: TEST_MINUTES_MAX * 60_000,
});
const isTest = ({ details, skip, todo }) => details.type === 'test' && !skip && !todo;
stream.on('test:pass', (event) => { counts.passed += isTest(event); });
stream.on('test:fail', (event) => { counts.failed += 1; });
stream.on('end', () => {
    const { passed, failed } = counts;
    const isGood = failed === 0 && passed > 0;
    process.exitCode = isGood ? 0 : 1;
    // After the reporter's last words.
    process.on('exit', () => console.log(`test result: ${isGood ? 'ok' : 'FAILED'}. ${passed} passed; ${failed} failed`));
});
stream.compose(new spec()).pipe(process.stdout);
