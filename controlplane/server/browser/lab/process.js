// Programs that run beside a test: started, waited for by what they say, ended with it.

import { execFile, spawn } from 'node:child_process';
import { setTimeout as pause } from 'node:timers/promises';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { promisify } from 'node:util';

import { program } from './options.js';

const POLL_MS = 50;
// An agent tells a node that was not there again after half a minute, and a busy machine doubles it.
const PATIENCE_MS = 120_000;
const STOP_MS_MAX = 10_000;

// Waits until `ask` gives something true, and gives that.
export async function until(what, ask, patienceMs = PATIENCE_MS) {
    const begun = Date.now();
    for (;;) {
        const found = await ask();
        if (found) return found;
        if (Date.now() - begun > patienceMs) throw new Error(`${what}: not within ${patienceMs} ms`);
        await pause(POLL_MS);
    }
}

// Runs a program to its end; what it printed. `input` goes to its standard input.
export async function runToEnd(name, args, { input, codes = [0], cwd } = {}) {
    const running = promisify(execFile)(program(name), args, { cwd, encoding: 'utf8' });
    // A command that does not read says itself what is wrong.
    running.child.stdin.on('error', () => {});
    running.child.stdin.end(input);
    const { code = 0, stdout, stderr } = await running.catch((error) => error);
    if (!codes.includes(code)) throw new Error(`${name} ${args.join(' ')}: exit ${code}\n${stdout}${stderr}`);
    return { code, stdout, stderr };
}

// A program that runs until it is stopped; its log is a file.
export class Running {
    constructor(name, args, { log, cwd }) {
        this.name = name;
        this.logFile = log;
        const file = openSync(log, 'a', 0o600);
        this.child = spawn(program(name), args, { cwd, stdio: ['ignore', file, file] });
        closeSync(file);
        this.ended = new Promise((resolve) => {
            this.child.once('exit', (code, signal) => resolve(code ?? signal));
            this.child.once('error', (error) => resolve(error.message));
        });
        this.ended.then((how) => { this.how = how; });
    }

    log() {
        return readFileSync(this.logFile, 'utf8');
    }

    // Waits for a line; what its pattern found.
    async says(pattern) {
        return until(`${this.name} says ${pattern}`, () => {
            if (this.how !== undefined) throw new Error(`${this.name} ended (${this.how}):\n${this.log()}`);
            return this.log().match(pattern);
        });
    }

    async stop() {
        if (this.how === undefined) this.child.kill('SIGTERM');
        const killed = setTimeout(() => this.child.kill('SIGKILL'), STOP_MS_MAX);
        await this.ended;
        clearTimeout(killed);
    }
}
