// Debian's Chromium, which trusts the lab's root and nothing else of it, and what is looked at on every page.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { chromium } from 'playwright-core';

import { CHROMIUM, OUT } from './lab/options.js';

export const WIDE = { width: 1280, height: 900 };
export const NARROW = { width: 390, height: 844 };
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const AXE_TAGS = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'];
// The provider's own pages name a font elsewhere; nothing is asked beyond this machine.
const HERE_ONLY = ['--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1'];
// The browser says a page's 4xx on the console, too; it is the answer that a person sees, and tests compare it.
const STATUS_LINE = /^Failed to load resource: the server responded with a status of 4\d\d/;
const SCREENSHOTS = path.join(OUT, 'screenshots');
// An answer waits for a disk that several programs share.
const ACTION_MS_MAX = 30_000;

export class Browser {
    // `root` is the PEM file of the CA that the control plane's certificate leads to.
    static async start(root) {
        const browser = new Browser();
        browser.home = mkdtempSync(path.join(os.tmpdir(), 'zen-browser-'));
        const store = path.join(browser.home, '.pki', 'nssdb');
        mkdirSync(store, { recursive: true });
        execFileSync('certutil', ['-d', `sql:${store}`, '-N', '--empty-password']);
        execFileSync('certutil', ['-d', `sql:${store}`, '-A', '-n', 'lab', '-t', 'C,,', '-i', root]);
        // Chromium's sandbox refuses to start for root, who runs tests in containers.
        const args = process.getuid() === 0 ? [...HERE_ONLY, '--no-sandbox'] : HERE_ONLY;
        const env = { ...process.env, HOME: browser.home, XDG_CONFIG_HOME: path.join(browser.home, 'config') };
        browser.chromium = await chromium.launch({ executablePath: CHROMIUM, args, env });
        mkdirSync(SCREENSHOTS, { recursive: true });
        return browser;
    }

    // A person with a fresh profile.
    async person({ javaScript = true, viewport = WIDE } = {}) {
        const context = await this.chromium.newContext({ javaScriptEnabled: javaScript, viewport, locale: 'en-GB',
            // Colours are measured, so none may be on its way to another.
            reducedMotion: 'reduce' });
        context.setDefaultTimeout(ACTION_MS_MAX);
        const page = await context.newPage();
        return new Person(context, page);
    }

    async stop() {
        await this.chromium.close();
        rmSync(this.home, { recursive: true, force: true, maxRetries: 5 });
    }
}

// A page, and what went wrong on it.
export class Person {
    constructor(context, page) {
        this.context = context;
        this.page = page;
        this.problems = [];
        page.on('console', (message) => {
            const isWrong = message.type() === 'error' || message.type() === 'warning';
            if (isWrong && !STATUS_LINE.test(message.text())) this.note(`console: ${message.text()}`);
        });
        page.on('pageerror', (error) => this.note(`script: ${error.message}`));
        // None opens by itself; what somebody means to do, is asked for with `confirming`.
        this.answersDialog = false;
        page.on('dialog', (dialog) => {
            if (this.answersDialog) return dialog.accept();
            this.note(`dialog: ${dialog.message()}`);
            return dialog.dismiss();
        });
        page.on('requestfailed', (request) => {
            const why = request.failure()?.errorText;
            // Somebody went on before a picture was there.
            if (why !== 'net::ERR_ABORTED') this.note(`${request.url()}: ${why}`);
        });
        page.on('response', (response) => {
            const isPage = response.request().isNavigationRequest();
            if (response.status() >= (isPage ? 500 : 400)) this.note(`${response.url()}: ${response.status()}`);
        });
    }

    // Of the control plane's pages, which are all behind TLS; the provider's are not ours.
    note(problem) {
        if (!this.page.url().startsWith('https:')) return;
        this.problems.push(`${this.page.url()}: ${problem}`);
    }

    // Everything that must be so on every page, wide (light and dark) and narrow; with a picture of each width.
    async look(name) {
        const before = this.page.viewportSize();
        for (const viewport of [WIDE, NARROW]) {
            await this.page.setViewportSize(viewport);
            await this.noSidewaysScrolling(name);
            const file = path.join(SCREENSHOTS, `${name}-${viewport.width}.png`);
            await this.page.screenshot({ path: file, fullPage: true });
            for (const colorScheme of viewport === WIDE ? ['dark', 'light'] : ['light']) {
                await this.page.emulateMedia({ colorScheme });
                await this.accessible(`${name}, ${viewport.width}, ${colorScheme}`);
            }
        }
        await this.page.setViewportSize(before);
        this.fine(name);
    }

    // Does what is asked about twice.
    async confirming(action) {
        this.answersDialog = true;
        await action();
        this.answersDialog = false;
    }

    // The status of the page that an action leads to, after redirections.
    async statusOf(action) {
        const [answer] = await Promise.all([
            this.page.waitForResponse((one) => one.request().isNavigationRequest() && ![301, 302, 303, 307, 308].includes(one.status())),
            action(),
        ]);
        await this.page.waitForLoadState();
        return answer.status();
    }

    fine(name) {
        assert.deepEqual(this.problems, [], name);
    }

    async noSidewaysScrolling(name) {
        const { content, window, widest } = await this.page.evaluate(() => {
            const all = [...document.querySelectorAll('body *')];
            const out = all.filter((element) => element.getBoundingClientRect().right > innerWidth + 1);
            const widest = out.slice(-3).map((element) => element.outerHTML.slice(0, 120));
            return { content: document.scrollingElement.scrollWidth, window: innerWidth, widest };
        });
        assert.ok(content <= window, `${name}: ${content} px in a window of ${window}: ${widest.join('\n')}`);
    }

    async accessible(name) {
        // Not a script of the page, which its policy would refuse.
        await this.page.evaluate(AXE);
        const found = await this.page.evaluate(
            (tags) => globalThis.axe.run(document, { runOnly: tags, resultTypes: ['violations'] }),
            AXE_TAGS,
        );
        const violations = found.violations.flatMap(({ id, help, nodes }) =>
            nodes.map(({ html, failureSummary }) => `${id}: ${help}: ${html.slice(0, 200)}: ${failureSummary}`));
        assert.deepEqual(violations, [], `${name}: what axe found at ${this.page.url()}`);
    }

    async leave() {
        await this.context.close();
    }
}
