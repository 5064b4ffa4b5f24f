// A CA of the lab's own and a certificate for localhost: for an ingester's public side, and for pages of our own.

import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';

// Files in `directory`: `ca.pem`, `public.pem` and `public.key`.
export function makeCertificates(directory) {
    const file = (name) => path.join(directory, name);
    const openssl = (...args) => execFileSync('openssl', args, { stdio: 'pipe' });
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
    openssl('req', '-x509', ...key, '-keyout', file('ca.key'), '-out', file('ca.pem'), '-days', '2', '-subj', '/CN=lab');
    openssl('req', ...key, '-keyout', file('public.key'), '-out', file('public.csr'), '-subj', '/CN=localhost');
    writeFileSync(file('extensions'), 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n');
    openssl('x509', '-req', '-in', file('public.csr'), '-CA', file('ca.pem'), '-CAkey', file('ca.key'), '-CAcreateserial',
        '-days', '2', '-extfile', file('extensions'), '-out', file('public.pem'));
    return { root: file('ca.pem'), certificate: file('public.pem'), key: file('public.key') };
}
