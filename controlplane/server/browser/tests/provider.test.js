// Single sign-on with a real OpenID provider: code flow with PKCE, groups that become roles, and what is refused.

import assert from 'node:assert/strict';
import test from 'node:test';
import { writeFileSync } from 'node:fs';

import { Browser } from '../browser.js';
import { CLIENT_ID, OpenIdProvider, cancelThere, signInThere } from '../provider.js';
import { Control, TENANT } from '../lab/control.js';
import { signOut } from '../ways/sign_in.js';

const CALLBACK = '/sign-in/provider/callback';
const BUTTON = 'Sign in with your organization';

async function start(t, { secret } = {}) {
    const provider = await OpenIdProvider.listen();
    t.after(() => provider.stop());
    const control = await Control.start((own) => {
        writeFileSync(own.file('client-secret'), secret ?? provider.clientSecret, { mode: 0o600 });
        return `[oidc]
issuer = "${provider.issuer}"
client_id = "${CLIENT_ID}"
client_secret_file = "client-secret"
redirect_uri = "${own.url}${CALLBACK}"
groups_claim = "groups"
[oidc.roles]
operators = "${TENANT}:admin"
writers = "${TENANT}:editor"
`;
    });
    t.after(() => control.stop());
    await provider.serve(`${control.url}${CALLBACK}`);
    const browser = await Browser.start(control.root);
    t.after(() => browser.stop());
    return { provider, control, browser };
}

// To the provider and back; the role that the page shows.
async function signIn(person, control, name) {
    await person.page.goto(`${control.url}/sign-in`);
    await person.page.getByRole('link', { name: BUTTON }).click();
    await signInThere(person.page, name);
    await person.page.getByRole('button', { name: 'Sign out' }).waitFor();
    return person.page.locator('header .badge').innerText();
}

test('groups become roles at each sign-in, and whoever has none is a viewer', async (t) => {
    const { provider, control, browser } = await start(t);
    provider.accounts.set('alice', ['operators', 'choir']).set('bob', []).set('carol', ['writers']);
    for (const [name, role] of [['alice', 'admin'], ['bob', 'viewer'], ['carol', 'editor']]) {
        const person = await browser.person();
        assert.equal(await signIn(person, control, name), role, name);
        await person.leave();
    }
    const asked = provider.requests.filter(({ path }) => path === '/auth').map(({ query }) => query);
    assert.equal(asked.length, 3);
    for (const query of asked) {
        assert.deepEqual([query.response_type, query.code_challenge_method], ['code', 'S256']);
        for (const part of ['state', 'nonce', 'code_challenge']) {
            assert.ok(query[part].length >= 22, `${part}: ${query[part]}`);
            assert.equal(new Set(asked.map((one) => one[part])).size, 3, `${part} is new each time`);
        }
    }
    provider.accounts.set('alice', []);
    const person = await browser.person();
    assert.equal(await signIn(person, control, 'alice'), 'viewer', 'left the group');
    await person.look('provider-viewer');
    await signOut(person.page);
    await person.page.goto(control.url);
    await person.page.waitForURL('**/sign-in*');
    await person.look('provider-sign-in');
});

test('consent that is denied lets nobody in', async (t) => {
    const { provider, control, browser } = await start(t);
    provider.accounts.set('alice', ['operators']);
    const person = await browser.person();
    await person.page.goto(`${control.url}/sign-in`);
    await person.page.getByRole('link', { name: BUTTON }).click();
    await cancelThere(person.page);
    await person.page.getByRole('alert').waitFor();
    await person.look('provider-denied');
    await person.page.goto(control.url);
    await person.page.waitForURL('**/sign-in*');
});

test('a code that was used, or that another browser asked for, lets nobody in', async (t) => {
    const { provider, control, browser } = await start(t);
    provider.accounts.set('alice', ['operators']);
    const person = await browser.person();
    const seen = [];
    person.page.on('request', (request) => { if (request.url().includes(CALLBACK)) seen.push(request.url()); });
    await signIn(person, control, 'alice');
    assert.equal(seen.length, 1);
    const thief = await browser.person();
    for (const one of [person, thief]) {
        const status = await one.statusOf(() => one.page.goto(seen[0]));
        assert.ok(status >= 400 && status < 500, `${status}`);
        await one.page.getByRole('alert').waitFor();
    }
    await thief.page.goto(control.url);
    await thief.page.waitForURL('**/sign-in*');
});

test('with a wrong client secret nobody comes in', async (t) => {
    const { provider, control, browser } = await start(t, { secret: 'not what the provider has' });
    provider.accounts.set('alice', ['operators']);
    const person = await browser.person();
    await person.page.goto(`${control.url}/sign-in`);
    await person.page.getByRole('link', { name: BUTTON }).click();
    await signInThere(person.page, 'alice');
    await person.page.getByRole('alert').waitFor();
    await person.page.goto(control.url);
    await person.page.waitForURL('**/sign-in*');
});
