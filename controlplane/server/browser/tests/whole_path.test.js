// A person's whole way in one browser, with the real agent, vault, nodes and a target: from the first sign-in to a webhook
// that arrives, one that does not, its replay, and the log of all that, checked by a program that trusts nobody here.

import assert from 'node:assert/strict';
import test from 'node:test';
import { randomUUID } from 'node:crypto';

import { Browser } from '../browser.js';
import { Control, OWNER, TENANT } from '../lab/control.js';
import { until } from '../lab/process.js';
import { CLUSTER, EGRESS, INGESTER, Site } from '../lab/site.js';
import { checkExport } from '../ways/audit.js';
import { add } from '../ways/objects.js';
import { linkIn, signOut, useLink } from '../ways/sign_in.js';

// No page and no file of the control plane may have it.
const CANARY = `canary-${randomUUID()}`;

test('from the first sign-in to a replayed dead letter and a log that verifies', async (t) => {
    const control = await Control.start();
    t.after(() => control.stop());
    const site = new Site(control);
    t.after(() => site.stop());
    await site.start();
    const browser = await Browser.start(control.root);
    t.after(() => browser.stop());
    const person = await browser.person();
    const { page } = person;
    const look = (name) => person.look(`whole-path-${name}`);
    // What comes after a step that failed would only wait for it.
    const step = async (name, body) => {
        let fault;
        await t.test(name, () => body().catch((error) => { fault = error; throw error; }));
        if (fault) throw new Error(`${name}: failed, and so the rest was not tried`);
    };
    const tenant = `${control.url}/tenants/${TENANT}`;

    await step('sign in, and see that there is nothing yet', async () => {
        await useLink(page, linkIn(control.said));
        await page.goto(tenant);
        await page.getByRole('heading', { level: 1 }).waitFor();
        await look('overview-empty');
    });

    await step('make a cluster and a bundle, which is shown once, and enroll the agent with it', async () => {
        await add(person, control.url, 'clusters', { fields: { Name: CLUSTER, Description: 'the host at the door' } }, look);
        await page.goto(`${tenant}/clusters/${CLUSTER}`);
        await page.getByLabel('Where the agent connects').fill(`https://127.0.0.1:${control.agentsPort}`);
        await page.getByRole('button', { name: 'Make bundle' }).click();
        await page.getByRole('heading', { name: 'Text' }).waitFor();
        const bundle = await page.locator('#bundle').innerText();
        await look('bundle');
        await page.goto(`${tenant}/clusters/${CLUSTER}`);
        const seed = JSON.parse(bundle).seed ?? bundle.slice(-40);
        assert.ok(!(await page.content()).includes(seed), 'a bundle is shown once');
        await site.enroll(bundle);
        await page.reload();
        await page.getByRole('cell', { name: 'used', exact: true }).waitFor();
        await look('cluster');
    });

    await step('automation says what hosts there are and brings sealed secrets', async () => {
        for (const [path, object] of Object.entries(await site.members())) {
            await control.api('PUT', `/v1/tenants/${TENANT}/${path}`, object);
        }
        for (const kind of ['members', 'credentials']) {
            await page.goto(`${tenant}/${kind}`);
            await look(kind);
        }
    });

    let endpoint;
    await step('add an endpoint, a destination and a flow, each with what would change', async () => {
        endpoint = await add(person, control.url, 'endpoints', {
            fields: { Secrets: site.place('webhooks', 'github'), Description: 'pushes' },
            choices: { Cluster: CLUSTER, 'Signature scheme': 'github' },
        }, look);
        assert.match(endpoint, /^[0-9a-f]{32}$/);
        const settings = { unix_socket: site.targetSocket, permanent_statuses: ['4xx'] };
        await add(person, control.url, 'destinations', {
            fields: { Name: 'billing', URL: 'http://localhost/hooks', 'Key id': 'billing-1',
                Secret: site.place('targets', 'billing'), 'Other settings': JSON.stringify(settings) },
            choices: { Cluster: CLUSTER },
        }, look);
        await add(person, control.url, 'delivery-flows', {
            fields: { Name: 'pushes' }, choices: { Endpoint: endpoint }, checks: ['billing'],
        }, async (name) => {
            if (name.endsWith('preview')) {
                // What the node would be told, before anybody is.
                for (const own of [INGESTER, EGRESS]) await page.getByRole('heading', { name: own }).waitFor();
                assert.match(await page.locator('ins').allInnerTexts().then((lines) => lines.join('\n')), /billing/);
            }
            await look(name);
        });
    });

    await step('publish, and see the nodes take it', async () => {
        await page.goto(`${tenant}/clusters/${CLUSTER}/configuration`);
        await look('publish');
        await page.getByRole('button', { name: 'Publish' }).click();
        await page.getByRole('status').waitFor();
        await site.startNodes();
        await until('both nodes apply it', async () => {
            await page.goto(`${tenant}/clusters/${CLUSTER}`);
            const applied = page.locator('#nodes .badge.good');
            return (await applied.count()) === 2;
        });
        await look('cluster-applied');
        await page.goto(tenant);
        await look('overview');
    });

    const rows = page.locator('#deliveries tbody tr');
    let event;
    await step('a signed webhook arrives, and its delivery is seen without its body', async () => {
        event = await site.deliver(endpoint, JSON.stringify({ note: CANARY }), randomUUID());
        await until('it arrives', () => site.arrived.length === 1);
        assert.equal(site.arrived[0].headers['zen-event-id'], event);
        await until('the delivery is on the page', async () => {
            await page.goto(`${tenant}/deliveries`);
            return (await rows.filter({ hasText: event }).count()) === 1;
        });
        await page.getByLabel('Event').fill(event);
        await page.getByRole('button', { name: 'Filter' }).click();
        await until('the filter leaves one', async () => (await rows.count()) === 1);
        assert.match(await rows.innerText(), /billing/);
        await look('deliveries');
    });

    await step('one that is refused becomes a dead letter, which is sent again', async () => {
        site.answer = 400;
        event = await site.deliver(endpoint, JSON.stringify({ note: CANARY, again: true }), randomUUID());
        const letter = page.locator('#letters tbody tr').filter({ hasText: event });
        await until('the letter is on the page', async () => {
            await page.goto(`${tenant}/dead-letters`);
            return (await letter.count()) === 1;
        });
        await look('dead-letters');
        site.answer = 200;
        await letter.getByRole('checkbox').check();
        await page.getByRole('button', { name: 'Send again' }).click();
        await page.getByRole('status').waitFor();
        await look('dead-letters-ordered');
        await until('it arrives', () => site.arrived.some(({ headers, answer }) =>
            headers['zen-event-id'] === event && headers['zen-replay'] === '1' && answer === 200));
        await until('the letter is gone', async () => {
            await page.goto(`${tenant}/dead-letters`);
            return (await letter.count()) === 0;
        });
        await until('its delivery is on the page', async () => {
            await page.goto(`${tenant}/deliveries?event=${event}`);
            return (await rows.count()) === 2;
        });
    });

    await step('the log has all of it, and an export verifies elsewhere', async () => {
        await page.goto(`${tenant}/audit`);
        const log = page.locator('#entries');
        for (const action of ['bundles.create', 'clusters.put', 'endpoints.put', 'destinations.put', 'delivery-flows.put',
            'configurations.create', 'dead-letters.replay']) {
            await log.getByRole('cell', { name: action }).first().waitFor();
        }
        await log.getByRole('cell', { name: `person:${OWNER}` }).first().waitFor();
        await look('audit');
        await page.getByRole('button', { name: 'Verify' }).click();
        await page.locator('#verification').waitFor();
        await look('audit-verified');
        await checkExport(person, control);
    });

    await step('people, tenants and what else there is to look at', async () => {
        for (const place of ['people', 'denials', 'billing', 'policies']) {
            await page.goto(`${tenant}/${place}`);
            await page.getByRole('heading', { level: 1 }).waitFor();
            await look(place);
        }
        await page.goto(`${control.url}/tenants`);
        await look('tenants');
        assert.equal(await person.statusOf(() => page.goto(`${control.url}/tenants/nobody-s`)), 404);
        await look('not-found');
        await signOut(page);
    });

    await step('no body ever came to the control plane', async () => {
        assert.deepEqual(control.filesWith(CANARY), []);
    });
});
