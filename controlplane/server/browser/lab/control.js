// A control plane in a directory of its own, on loopback, with its web listener.

import { createServer } from 'node:net';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import os from 'node:os';
import path from 'node:path';

import { Running, runToEnd } from './process.js';

export const TRUST_DOMAIN = 'acme.example';
export const TENANT = 'acme';
export const OWNER = 'olga';

const PORT_FIRST = 30_000;
const PORT_LAST = 32_699;

let lastPort = PORT_FIRST + ((process.pid * 61) % (PORT_LAST - PORT_FIRST));

// A port that was free a moment ago; below those that the kernel gives to clients, and beyond those of perf/ports.
export async function freePort() {
    for (;;) {
        lastPort = lastPort < PORT_LAST ? lastPort + 1 : PORT_FIRST;
        const port = lastPort;
        const server = createServer();
        const isFree = await new Promise((resolve) => {
            server.once('error', () => resolve(false));
            server.listen(port, '127.0.0.1', () => resolve(true));
        });
        if (!isFree) continue;
        await new Promise((resolve) => server.close(resolve));
        return port;
    }
}

export class Control {
    // `settings` gets the control plane's address for browsers, and gives what else its configuration says.
    static async start(settings = () => '') {
        const control = new Control();
        control.directory = mkdtempSync(path.join(os.tmpdir(), 'zen-control-'));
        control.state = control.file('control');
        [control.agentsPort, control.peoplePort, control.webPort] = await Promise.all([freePort(), freePort(), freePort()]);
        control.url = `https://localhost:${control.webPort}`;
        const init = ['init', '--dir', control.state, '--trust-domain', TRUST_DOMAIN, '--tenant', TENANT, '--owner', OWNER,
            '--web-url', control.url];
        control.said = (await runToEnd('zen-control', init)).stdout;
        const text = `directory = "control"
[agents]
listen = "127.0.0.1:${control.agentsPort}"
[people]
listen = "127.0.0.1:${control.peoplePort}"
[web]
listen = "127.0.0.1:${control.webPort}"
${settings(control)}`;
        writeFileSync(control.file('control.toml'), text);
        const args = ['run', '--config', control.file('control.toml')];
        control.running = new Running('zen-control', args, { log: control.file('control.log') });
        await control.running.says(/listening for agents/);
        return control;
    }

    file(name) {
        return path.join(this.directory, name);
    }

    get root() {
        return path.join(this.state, 'roots.pem');
    }

    // A command of whoever has the directory.
    async command(...args) {
        return (await runToEnd('zen-control', [...args, '--dir', this.state])).stdout;
    }

    // The API as automation uses it: with the owner's certificate.
    async api(method, route, body) {
        if (!this.certificate) {
            this.certificate = this.file('owner');
            await this.command('person', 'certificate', '--name', OWNER, '--out', this.certificate);
        }
        const own = (name) => readFileSync(path.join(this.certificate, name));
        const options = { method, port: this.peoplePort, host: 'localhost', ca: own('root.pem'), cert: own('certificate.pem'),
            key: own('key.pem'), path: route, headers: body ? { 'content-type': 'application/json' } : {} };
        const { status, text } = await ask(options, body && JSON.stringify(body));
        if (status >= 300) throw new Error(`${method} ${route}: ${status} ${text}`);
        return text && JSON.parse(text);
    }

    // Files of the control plane, and what it logged, that have a text in them.
    filesWith(text) {
        const inside = readdirSync(this.state, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
        const files = inside.map((entry) => path.join(entry.parentPath, entry.name));
        return [...files, this.running.logFile].filter((file) => readFileSync(file).includes(text));
    }

    async stop() {
        await this.running?.stop();
        rmSync(this.directory, { recursive: true, force: true });
    }
}

// One request over TLS.
export function ask(options, body) {
    return new Promise((resolve, reject) => {
        const asking = request({ agent: false, ...options }, (response) => {
            const parts = [];
            response.on('data', (part) => parts.push(part));
            response.on('error', reject);
            response.on('end', () => {
                resolve({ status: response.statusCode, headers: response.headers, text: Buffer.concat(parts).toString() });
            });
        });
        asking.on('error', reject);
        asking.end(body);
    });
}
