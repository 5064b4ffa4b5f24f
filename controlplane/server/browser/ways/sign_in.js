// What a person does to come in: with a one-time link the first time, then with password and authenticator.

import { Authenticator } from '../totp.js';

export const PASSWORD = 'a sentence that nobody guesses';

// The link of a command's output.
export function linkIn(text) {
    return text.match(/https:\/\/\S+\/sign-in\/link\?token=\S+/)[0];
}

// Sets password and authenticator; the authenticator.
export async function useLink(page, link, look = async () => {}) {
    await page.goto(link);
    const authenticator = new Authenticator(await page.locator('#secret').innerText());
    await look();
    await page.getByLabel('New password').fill(PASSWORD);
    await page.getByLabel('Code').fill(await authenticator.next());
    await page.getByRole('button', { name: 'Set password and sign in' }).click();
    await page.waitForURL((url) => !url.pathname.startsWith('/sign-in'));
    return authenticator;
}

// Fills in the form and sends it.
export async function type(page, name, password, code) {
    await page.getByLabel('Name').fill(name);
    await page.getByLabel('Password').fill(password);
    await page.getByLabel('Code').fill(code);
    await page.getByRole('button', { name: 'Sign in', exact: true }).click();
}

export async function signOut(page) {
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.waitForURL('**/sign-in');
}
