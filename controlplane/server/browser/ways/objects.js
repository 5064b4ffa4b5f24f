// What a person does to say what there is to be: a form, what would change by it, and only then Save.

import assert from 'node:assert/strict';

import { TENANT } from '../lab/control.js';

// Fills in the form of something new and saves it; what it is called. `look` sees the form and what would change.
export async function add(person, url, kind, { fields, choices = {}, checks = [] }, look = async () => {}) {
    const { page } = person;
    await page.goto(`${url}/tenants/${TENANT}/new/${kind}`);
    for (const [label, value] of Object.entries(fields)) await page.getByLabel(label, { exact: true }).fill(value);
    for (const [label, value] of Object.entries(choices)) await page.getByLabel(label, { exact: true }).selectOption(value);
    for (const label of checks) await page.getByRole('checkbox', { name: label }).check();
    const name = await page.getByLabel('Name', { exact: true }).inputValue();
    await look(`${kind}-new`);
    await page.getByRole('button', { name: 'Show what would change' }).click();
    await page.getByRole('button', { name: 'Save' }).waitFor();
    await look(`${kind}-preview`);
    await page.getByRole('button', { name: 'Save' }).click();
    await page.getByRole('status').waitFor();
    assert.match(await page.getByRole('status').innerText(), /^Saved/);
    await page.getByRole('rowheader', { name }).waitFor();
    await look(kind);
    return name;
}
