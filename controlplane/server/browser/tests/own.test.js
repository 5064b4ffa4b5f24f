// The parts of these tests that could lie: the authenticator, and the eyes that look at each page.

import assert from 'node:assert/strict';
import test from 'node:test';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:https';
import os from 'node:os';
import path from 'node:path';

import { Browser } from '../browser.js';
import { makeCertificates } from '../lab/certificates.js';
import { code } from '../totp.js';

// RFC 6238, appendix B: SHA-1, the last six digits of eight.
const VECTORS = [[59, '287082'], [1111111109, '081804'], [1111111111, '050471'], [1234567890, '005924'],
    [2000000000, '279037'], [20000000000, '353130']];
const STRICT = "default-src 'none'; style-src 'self'";

test('the authenticator shows the codes of RFC 6238', () => {
    const secret = 'GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ';
    for (const [seconds, expected] of VECTORS) assert.equal(code(secret, seconds * 1000), expected, String(seconds));
});

const page = (body) => `<!doctype html><html lang="en"><head><title>A page</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width"></head><body><main><h1>A page</h1>${body}</main></body></html>`;
// Each page has one fault, and what must be said of it.
const PAGES = {
    '/good': { body: '<p>Nothing is wrong.</p>' },
    '/wide': { body: '<pre>' + 'x'.repeat(400) + '</pre>', fault: /px in a window of/ },
    '/unlabelled': { body: '<input name="a">', fault: /label/ },
    '/script': { body: '<script>document.title = "x"</script>', fault: /Content Security Policy/ },
    '/broken': { body: '<p>Our fault.</p>', status: 500, fault: /500/ },
    '/pale': { body: '<p><font color="#dddddd" bgcolor="#ffffff">Hard to read</font></p>', fault: /color-contrast/ },
};

test('each eye sees the fault that it looks for, and only the right root is trusted', async (t) => {
    const directory = mkdtempSync(path.join(os.tmpdir(), 'zen-own-'));
    t.after(() => rmSync(directory, { recursive: true }));
    const { root, certificate, key } = makeCertificates(directory);
    const server = createServer({ cert: readFileSync(certificate), key: readFileSync(key) }, (request, response) => {
        const { body = '', status = 200 } = PAGES[request.url] ?? { status: 404 };
        response.writeHead(status, { 'content-type': 'text/html', 'content-security-policy': `${STRICT}; img-src data:` });
        response.end(page(body));
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    t.after(() => server.close());
    t.after(() => server.closeAllConnections());
    const url = `https://localhost:${server.address().port}`;
    const browser = await Browser.start(root);
    t.after(() => browser.stop());
    for (const [place, { fault }] of Object.entries(PAGES)) {
        const person = await browser.person();
        await person.page.goto(url + place);
        const looked = person.look(`own${place.replace('/', '-')}`);
        await (fault ? assert.rejects(looked, fault, place) : looked);
        await person.leave();
    }
    const other = mkdtempSync(path.join(directory, 'other-'));
    const stranger = await Browser.start(makeCertificates(other).root);
    t.after(() => stranger.stop());
    const person = await stranger.person();
    await assert.rejects(person.page.goto(`${url}/good`), /ERR_CERT_AUTHORITY_INVALID/);
});
