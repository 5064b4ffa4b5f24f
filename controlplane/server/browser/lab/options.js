// What the runner says to each test file.

import { parseArgs } from 'node:util';
import path from 'node:path';

const { values } = parseArgs({
    options: { programs: { type: 'string' }, chromium: { type: 'string' }, out: { type: 'string' } },
    strict: true,
});

export const CHROMIUM = values.chromium;
export const OUT = values.out;

// The path of one of our programs.
export function program(name) {
    return path.join(values.programs, name);
}
