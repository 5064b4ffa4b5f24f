// A host of a cluster: a vault, an agent, an ingester and an egress, and what the egress delivers to. Everything but the
// configuration, which people make.

import { createHmac, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { makeCertificates } from './certificates.js';
import { ask, freePort } from './control.js';
import { Running, runToEnd, until } from './process.js';
import { program } from './options.js';

export const CLUSTER = 'edge';
export const INGESTER = 'edge-1';
export const EGRESS = 'inside-1';
const NAMESPACE = 'edge';
// What the control plane hears of deliveries is receipts, which a node keeps only where it is told how many.
const RECEIPTS_BYTES_MAX = 16 << 20;

export class Site {
    constructor(control) {
        this.directory = control.directory;
        this.processes = [];
        this.secret = randomBytes(24).toString('hex');
    }

    async start() {
        // Where the agent publishes; lockd looks into it.
        mkdirSync(this.file('agent'), { mode: 0o755 });
        mkdirSync(this.file('agent/secrets'), { mode: 0o700 });
        mkdirSync(this.file('public'));
        this.tls = makeCertificates(this.file('public'));
        [this.publicPort, this.linkPort] = [await freePort(), await freePort()];
        await this.startTarget();
        await this.startVault();
        this.writeAgent();
    }

    file(name) {
        return path.join(this.directory, name);
    }

    run(name, args) {
        const running = new Running(name, args, { log: this.file(`${name}-${this.processes.length}.log`) });
        this.processes.push(running);
        return running;
    }

    // Answers as `answers` says, else 200; keeps what came.
    async startTarget() {
        this.arrived = [];
        this.answer = 200;
        this.target = createServer((request, response) => {
            const parts = [];
            request.on('data', (part) => parts.push(part));
            request.on('end', () => {
                this.arrived.push({ headers: request.headers, body: Buffer.concat(parts).toString(), answer: this.answer });
                response.writeHead(this.answer).end();
            });
        });
        this.targetSocket = this.file('target.sock');
        await new Promise((resolve) => this.target.listen(this.targetSocket, resolve));
    }

    async startVault() {
        const { stdout } = await runToEnd('zen-lockd', ['keygen', '--out', this.file('own.key')]);
        this.recipient = stdout.match(/age1\w+/)[0];
        writeFileSync(this.file('lockd.toml'), `socket = "lockd.sock"
key_file = "own.key"
[secrets]
generations = "agent/secrets"
[receipts]
directory = "receipts"
[memory]
lock = "try"
[[grants]]
user = "${process.getuid()}"
secrets = ["zen/*", "zen-link/*", "${NAMESPACE}/*"]
`);
        await this.run('zen-lockd', ['run', '--config', this.file('lockd.toml')]).says(/ready/);
    }

    writeAgent() {
        const member = (name) => `[[members]]\nname = "${name}"\nadmin_socket = "${this.file(`${name}.sock`)}"\n`;
        writeFileSync(this.file('agent.toml'), `state_dir = "agent"
recipient = "${this.recipient}"
lockd_program = "${program('zen-lockd')}"
[lockd]
socket = "lockd.sock"
${member(INGESTER)}${member(EGRESS)}`);
    }

    // Where others find a secret once it is in place.
    place(name, key) {
        return `${NAMESPACE}/${name}/${key}`;
    }

    // A secret as the control plane may keep it: for this host's vault alone.
    async seal(name, key, value) {
        const out = this.file('sealed');
        await runToEnd('zen-lockd', ['seal', '--recipient', this.recipient, '--namespace', NAMESPACE, '--name', name,
            '--from-json', '-', '--out-dir', out, '--replace'], { input: JSON.stringify({ [key]: value }) });
        return readFileSync(path.join(out, NAMESPACE, name, `${key}.age`)).toString('base64');
    }

    // What only this host knows of its nodes, in the form of the API; people add endpoints, targets and flows.
    async members() {
        const own = (name) => ({
            node: { data_dir: this.file(name), workers: 1, pin_workers: false, reload_poll_ms: 200 },
            admin: { socket: this.file(`${name}.sock`) },
            lockd: { socket: this.file('lockd.sock') },
        });
        const link = `127.0.0.1:${this.linkPort}`;
        const ingester = { listen: [`127.0.0.1:${this.publicPort}`], certificate_file: this.tls.certificate,
            private_key_file: `lockd:${this.place('public', 'tls.key')}` };
        const sealed = async (name, key, value) => ({
            clusters: [CLUSTER], place: this.place(name, key), ciphertext: await this.seal(name, key, value),
        });
        const signing = `whsec_${randomBytes(32).toString('base64')}`;
        return {
            [`members/${INGESTER}`]: { cluster: CLUSTER, roles: ['ingester'], link: { listen: link, address: link },
                settings: { ...own(INGESTER), ingester } },
            [`members/${EGRESS}`]: { cluster: CLUSTER, roles: ['egress'], settings: { ...own(EGRESS), egress: { receipts: { bytes_max: RECEIPTS_BYTES_MAX } } } },
            'credentials/public': await sealed('public', 'tls.key', readFileSync(this.tls.key, 'utf8')),
            'credentials/github': await sealed('webhooks', 'github', this.secret),
            'credentials/billing': await sealed('targets', 'billing', signing),
        };
    }

    // The bundle is a text that somebody copied from a page.
    async enroll(bundle) {
        writeFileSync(this.file('bundle.json'), bundle, { mode: 0o600 });
        await runToEnd('zen-agent', ['enroll', '--bundle', this.file('bundle.json'), '--config', this.file('agent.toml')]);
        this.agent = this.run('zen-agent', ['run', '--config', this.file('agent.toml')]);
        await this.agent.says(/ ready /);
    }

    async startNodes() {
        for (const name of [INGESTER, EGRESS]) {
            mkdirSync(this.file(name), { recursive: true });
            const managed = this.file(`agent/members/${name}`);
            await until(`the agent has published ${name}`, () => existsSync(path.join(managed, 'current')));
            await this.run('zen-dataplane', ['--managed', managed]).says(/privileges: /);
        }
    }

    // A webhook as the source signs it; the answer's status and JSON.
    async send(endpoint, body, delivery) {
        const signature = createHmac('sha256', this.secret).update(body).digest('hex');
        const headers = { 'content-type': 'application/json', 'x-hub-signature-256': `sha256=${signature}`,
            'x-github-event': 'push', 'x-github-delivery': delivery };
        const options = { method: 'POST', host: 'localhost', port: this.publicPort, path: `/hooks/${endpoint}`,
            ca: readFileSync(this.tls.root), headers };
        const { status, text } = await ask(options, body);
        return { status, answer: text && JSON.parse(text) };
    }

    // Sends until it is accepted, as sources do while a node starts; the event's id.
    async deliver(endpoint, body, delivery) {
        const sent = await until('the webhook is accepted', async () => {
            const { status, answer } = await this.send(endpoint, body, delivery).catch(({ code }) => ({ status: code }));
            return status === 202 && answer;
        });
        return sent.id;
    }

    async stop() {
        for (const running of this.processes.reverse()) await running.stop();
        if (!this.target) return;
        this.target.closeAllConnections();
        await new Promise((resolve) => this.target.close(resolve));
    }
}
