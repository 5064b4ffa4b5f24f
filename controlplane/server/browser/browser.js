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
        const args = process.getuid() === 0 ? ['--no-sandbox'] : [];
        const env = { ...process.env, HOME: browser.home, XDG_CONFIG_HOME: path.join(browser.home, 'config') };
        browser.chromium = await chromium.launch({ executablePath: CHROMIUM, args, env });
        mkdirSync(SCREENSHOTS, { recursive: true });
        return browser;
    }

    // A person with a fresh profile.
    async person({ javaScript = true, viewport = WIDE } = {}) {
        const context = await this.chromium.newContext({ javaScriptEnabled: javaScript, viewport, locale: 'en-GB' });
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
            if (message.type() === 'error' || message.type() === 'warning') this.note(`console: ${message.text()}`);
        });
        page.on('pageerror', (error) => this.note(`script: ${error.message}`));
        page.on('dialog', (dialog) => { this.note(`dialog: ${dialog.message()}`); dialog.dismiss(); });
        page.on('requestfailed', (request) => this.note(`${request.url()}: ${request.failure()?.errorText}`));
        page.on('response', (response) => {
            if (response.status() >= 500) this.note(`${response.url()}: ${response.status()}`);
        });
    }

    note(problem) {
        this.problems.push(`${this.page.url()}: ${problem}`);
    }

    // Everything that must be so on every page, light and dark, wide and narrow; with a picture of each width.
    async look(name) {
        const before = this.page.viewportSize();
        for (const viewport of [WIDE, NARROW]) {
            await this.page.setViewportSize(viewport);
            await this.noSidewaysScrolling(name);
            const file = path.join(SCREENSHOTS, `${name}-${viewport.width}.png`);
            await this.page.screenshot({ path: file, fullPage: true });
            for (const colorScheme of ['dark', 'light']) {
                await this.page.emulateMedia({ colorScheme });
                await this.accessible(`${name}, ${viewport.width}, ${colorScheme}`);
            }
        }
        await this.page.setViewportSize(before);
        this.fine(name);
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
