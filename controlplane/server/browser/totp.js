// RFC 6238 with SHA-1, six digits and 30 seconds: what an authenticator app shows.

import { createHmac } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';

const STEP_MS = 30_000;
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';

function fromBase32(text) {
    const bits = [...text.toUpperCase().replace(/[\s=]/g, '')]
        .map((letter) => ALPHABET.indexOf(letter).toString(2).padStart(5, '0'))
        .join('');
    const bytes = bits.match(/.{8}/g) ?? [];
    return Buffer.from(bytes.map((byte) => Number.parseInt(byte, 2)));
}

export function code(secret, atMs) {
    const step = Buffer.alloc(8);
    step.writeBigUInt64BE(BigInt(Math.floor(atMs / STEP_MS)));
    const mac = createHmac('sha1', fromBase32(secret)).update(step).digest();
    const place = mac[19] & 15;
    return String((mac.readUInt32BE(place) & 0x7fffffff) % 1_000_000).padStart(6, '0');
}

// An app that shows no code twice. Its clock may be a step off in either direction, which every server allows, so that
// three codes can be had without waiting.
export class Authenticator {
    constructor(secret) {
        this.secret = secret;
        this.lastStep = 0;
    }

    async next() {
        const now = () => Math.floor(Date.now() / STEP_MS);
        this.lastStep = Math.max(this.lastStep + 1, now() - 1);
        if (this.lastStep > now() + 1) await pause((this.lastStep - 1) * STEP_MS - Date.now());
        return code(this.secret, this.lastStep * STEP_MS);
    }
}
