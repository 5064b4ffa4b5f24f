// A real OpenID provider on loopback, with its own pages: who signs in types a name and any password, then consents.

import { createServer } from 'node:http';
import { randomBytes } from 'node:crypto';
import { exportJWK, generateKeyPair } from 'jose';
import Provider from 'oidc-provider';

export const CLIENT_ID = 'zen-control';

export class OpenIdProvider {
    // It listens first: its issuer has the port, and the client's settings have the issuer.
    static async listen() {
        const provider = new OpenIdProvider();
        provider.server = createServer((request, response) => provider.handle(request, response));
        await new Promise((resolve) => provider.server.listen(0, '127.0.0.1', resolve));
        provider.issuer = `http://127.0.0.1:${provider.server.address().port}`;
        provider.clientSecret = randomBytes(32).toString('hex');
        // Name to groups; anybody else is nobody.
        provider.accounts = new Map();
        // What the client was seen to ask for, by path.
        provider.requests = [];
        return provider;
    }

    // From now on the client may ask.
    async serve(redirectUri) {
        const { privateKey } = await generateKeyPair('RS256', { extractable: true });
        const key = { ...(await exportJWK(privateKey)), alg: 'RS256', use: 'sig', kid: 'first' };
        const oidc = new Provider(this.issuer, {
            clients: [{
                client_id: CLIENT_ID,
                client_secret: this.clientSecret,
                redirect_uris: [redirectUri],
                grant_types: ['authorization_code'],
                response_types: ['code'],
            }],
            jwks: { keys: [key] },
            cookies: { keys: [randomBytes(32).toString('hex')] },
            pkce: { required: () => true },
            // Groups are in the ID token, as most providers put them there.
            conformIdTokenClaims: false,
            ttl: { AccessToken: 600, Grant: 600, IdToken: 600, Interaction: 600, Session: 600 },
            claims: { openid: ['sub', 'groups', 'name'] },
            findAccount: (_, id) => this.account(id),
        });
        this.callback = oidc.callback();
    }

    handle(request, response) {
        const url = new URL(request.url, this.issuer);
        this.requests.push({ method: request.method, path: url.pathname, query: Object.fromEntries(url.searchParams) });
        if (this.callback) this.callback(request, response);
        else response.writeHead(503).end();
    }

    account(id) {
        const groups = this.accounts.get(id);
        return groups && { accountId: id, claims: () => ({ sub: id, name: id, groups }) };
    }

    async stop() {
        this.server.closeAllConnections();
        await new Promise((resolve) => this.server.close(resolve));
    }
}

// What a person does on the provider's pages.
export async function signInThere(page, name) {
    await page.getByPlaceholder(/login/i).fill(name);
    await page.getByPlaceholder(/password/i).fill('anything goes here');
    await page.getByRole('button', { name: /sign-in/i }).click();
    await page.getByRole('button', { name: /continue/i }).click();
}

// Somebody who thinks better of it.
export async function cancelThere(page) {
    await page.getByRole('link', { name: /cancel/i }).click();
}
