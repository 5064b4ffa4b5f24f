// People with an account of the control plane: the first owner's link, password and code, and the end of a session.

import assert from 'node:assert/strict';
import test from 'node:test';

import { Browser } from '../browser.js';
import { Control, OWNER } from '../lab/control.js';
import { PASSWORD, linkIn, signOut, type, useLink } from '../ways/sign_in.js';

const COOKIE = '__Host-zen-session';

async function start(t) {
    const control = await Control.start();
    t.after(() => control.stop());
    const browser = await Browser.start(control.root);
    t.after(() => browser.stop());
    return { control, browser };
}

test('the first owner comes in by the link of init, once, and then with password and code', async (t) => {
    const { control, browser } = await start(t);
    const person = await browser.person();
    const { page } = person;
    const link = linkIn(control.said);
    const authenticator = await useLink(page, link, () => person.look('sign-in-link'));
    await page.getByText(OWNER).first().waitFor();
    const cookie = (await person.context.cookies()).find(({ name }) => name === COOKIE);
    assert.deepEqual(
        [cookie.secure, cookie.httpOnly, cookie.sameSite, cookie.path, cookie.domain],
        [true, true, 'Lax', '/', 'localhost'],
    );
    assert.equal(await page.evaluate(() => document.cookie), '', 'no script sees the session');
    await signOut(page);
    await person.look('sign-in');

    const wrong = [[OWNER, 'another sentence altogether', await authenticator.next()], ['nobody', PASSWORD, '123456'],
        [OWNER, PASSWORD, '12345']];
    const said = [];
    for (const [name, password, code] of wrong) {
        const status = await person.statusOf(() => type(page, name, password, code));
        assert.equal(status, 422);
        said.push(await page.getByRole('alert').innerText());
    }
    assert.equal(new Set(said).size, 1, `what is wrong is told to nobody: ${said}`);
    await person.look('sign-in-refused');

    const code = await authenticator.next();
    await page.goto(control.url);
    await type(page, OWNER, PASSWORD, code);
    await page.getByRole('button', { name: 'Sign out' }).waitFor();
    const renewed = (await person.context.cookies()).find(({ name }) => name === COOKIE);
    assert.notEqual(renewed.value, cookie.value, 'each sign-in has a session of its own');

    // Somebody else with the link, or with the code that was seen over the shoulder.
    const other = await browser.person();
    assert.equal(await other.statusOf(() => other.page.goto(link)), 410);
    await other.page.getByRole('alert').waitFor();
    await other.look('sign-in-link-used');
    await other.page.goto(`${control.url}/sign-in`);
    assert.equal(await other.statusOf(() => type(other.page, OWNER, PASSWORD, code)), 422, 'a code is good once');
});

test('after sign-out the session is over, and going back shows nothing of it', async (t) => {
    const { control, browser } = await start(t);
    const person = await browser.person();
    const { page } = person;
    await useLink(page, linkIn(control.said));
    const inside = page.url();
    const stolen = (await person.context.cookies()).filter(({ name }) => name === COOKIE);
    await signOut(page);
    await page.goBack();
    await page.waitForURL('**/sign-in*');
    assert.equal(await page.getByRole('button', { name: 'Sign out' }).count(), 0);
    await person.context.addCookies(stolen);
    await page.goto(inside);
    await page.waitForURL('**/sign-in*');
    person.fine('after sign-out');
});

test('another site can neither frame the pages nor use the session', async (t) => {
    const { control, browser } = await start(t);
    const person = await browser.person();
    const { page } = person;
    await useLink(page, linkIn(control.said));
    const inside = page.url();
    // The same session and another origin: what the browser is told decides.
    const foreign = await person.context.newPage();
    await foreign.route('https://evil.example/', (route) => route.fulfill({ contentType: 'text/html', body: `
        <iframe id="frame" src="${inside}"></iframe>
        <form id="out" method="post" action="${control.url}/sign-out"><input name="csrf" value=""><button>Win</button></form>` }));
    await foreign.goto('https://evil.example/');
    const frame = await (await foreign.waitForSelector('#frame')).contentFrame();
    assert.equal(await frame.getByRole('button', { name: 'Sign out' }).count(), 0, 'a frame of it would be clicked by others');
    const [answer] = await Promise.all([
        foreign.waitForResponse((response) => response.url().endsWith('/sign-out')),
        foreign.getByRole('button', { name: 'Win' }).click(),
    ]);
    assert.equal(answer.status(), 403);
    await page.reload();
    await page.getByRole('button', { name: 'Sign out' }).waitFor();
});

test('sign-in works without JavaScript', async (t) => {
    const { control, browser } = await start(t);
    const person = await browser.person({ javaScript: false });
    const authenticator = await useLink(person.page, linkIn(control.said));
    await signOut(person.page);
    await type(person.page, OWNER, PASSWORD, await authenticator.next());
    await person.page.getByRole('button', { name: 'Sign out' }).waitFor();
    person.fine('without JavaScript');
});
