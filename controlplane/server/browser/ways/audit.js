// An export of the log, checked by zen-audit with the keys of the log and of the agent that is its witness.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';

import { runToEnd, until } from '../lab/process.js';

const PASS = 0;
const FAIL = 4;

// Downloads it as a person does, until the witness has signed for all of it.
export async function checkExport(person, control) {
    const file = control.file('audit.jsonl');
    const key = (await control.command('audit', 'key')).trim();
    const witness = (await control.command('audit', 'witnesses')).split(/\s+/)[1];
    const verify = ['verify', '--log-key', key, '--witness-key', witness];
    await until('a witness has signed for all of it', async () => {
        const [download] = await Promise.all([
            person.page.waitForEvent('download'),
            person.page.getByRole('link', { name: 'Export' }).click(),
        ]);
        await download.saveAs(file);
        const { code, stdout } = await runToEnd('zen-audit', [...verify, file], { codes: [PASS, 3] });
        return code === PASS && /PASS +\[0,\d+\)/.test(stdout);
    });
    // The same export with one entry's outcome changed.
    const lines = readFileSync(file, 'utf8').split('\n');
    const index = lines.findIndex((line) => line.includes('"entry"'));
    const entry = Buffer.from(JSON.parse(lines[index]).entry, 'base64').toString();
    const changed = entry.replace(/"(done|refused)"/, (word) => (word === '"done"' ? '"refused"' : '"done"'));
    assert.notEqual(changed, entry);
    lines[index] = JSON.stringify({ entry: Buffer.from(changed).toString('base64') });
    writeFileSync(file, lines.join('\n'));
    const { stdout } = await runToEnd('zen-audit', [...verify, file], { codes: [FAIL] });
    assert.match(stdout, /FAIL +from \d+/);
}
