// All pages of a tenant: they work without JavaScript, and markup that somebody stored is text on each of them.

import assert from 'node:assert/strict';
import test from 'node:test';

import { Browser } from '../browser.js';
import { Control, TENANT } from '../lab/control.js';
import { add } from '../ways/objects.js';
import { linkIn, signOut, useLink } from '../ways/sign_in.js';

const MARKUP = '</textarea></td><img src="x" class="stored" onerror="alert(1)"><script class="stored">alert(1)</script>';
const CLUSTER = 'edge';
// Sections of the menu, and how many there are at least: a menu that is empty would be looked at in no time.
const SECTIONS_MIN = 12;

async function start(t, options) {
    const control = await Control.start();
    t.after(() => control.stop());
    const browser = await Browser.start(control.root);
    t.after(() => browser.stop());
    const person = await browser.person(options);
    await useLink(person.page, linkIn(control.said));
    return { control, person, page: person.page };
}

// Every page that the menu leads to, and what lists on them lead to.
async function places(page, url) {
    await page.goto(`${url}/tenants/${TENANT}`);
    const hrefs = (links) => links.map((link) => link.href);
    const menu = await page.locator('nav a').evaluateAll(hrefs);
    assert.ok(menu.length >= SECTIONS_MIN, menu.join(' '));
    const found = new Set(menu);
    for (const section of menu) {
        await page.goto(section);
        for (const place of await page.locator('main a').evaluateAll(hrefs)) {
            if (place.startsWith(`${url}/tenants/`) && !/export|proof/.test(place)) found.add(place);
        }
    }
    return [...found];
}

test('stored markup is text on every page that has it', async (t) => {
    const { control, person, page } = await start(t);
    const put = (path, object) => control.api('PUT', `/v1/tenants/${TENANT}/${path}`, { ...object, description: MARKUP });
    await put(`clusters/${CLUSTER}`, {});
    await put('members/edge-1', { cluster: CLUSTER, roles: [] });
    await put(`endpoints/${'a'.repeat(32)}`, { cluster: CLUSTER, scheme: 'github', secrets: ['edge/webhooks/github'] });
    await put('policies/links', { scope: 'links', allow: ['spiffe://acme.example/*'], deny: [] });
    let shown = 0;
    for (const place of await places(page, control.url)) {
        await page.goto(place);
        assert.equal(await page.locator('.stored').count(), 0, place);
        shown += (await page.locator('main').innerText()).includes('class="stored"');
    }
    assert.ok(shown >= 3, `the markup is to be seen, as text: on ${shown} pages`);
    person.fine('stored markup');
});

test('every page works without JavaScript', async (t) => {
    const { control, person, page } = await start(t, { javaScript: false });
    await add(person, control.url, 'clusters', { fields: { Name: CLUSTER } });
    await page.goto(`${control.url}/tenants/${TENANT}/clusters/${CLUSTER}`);
    await page.getByLabel('Where the agent connects').fill('https://control.acme.example:8444');
    await page.getByRole('button', { name: 'Make bundle' }).click();
    assert.match(await page.locator('#bundle').innerText(), /control\.acme\.example/);
    await page.goto(`${control.url}/tenants/${TENANT}/clusters/${CLUSTER}`);
    await page.getByRole('button', { name: /^Revoke bundle/ }).click();
    await page.getByRole('status').waitFor();
    for (const place of await places(page, control.url)) {
        assert.equal(await person.statusOf(() => page.goto(place)), 200, place);
        assert.equal(await page.getByRole('heading', { level: 1 }).count(), 1, place);
        await person.noSidewaysScrolling(place);
    }
    await signOut(page);
    person.fine('without JavaScript');
});
