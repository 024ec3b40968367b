// An OpenID provider for the tests: oidc-provider over TLS, told what to do by lines of JSON on its standard input.
//
// Arguments: the port, and a directory with `ca.pem`, and `<name>.pem` and `<name>.key` for each certificate that it
// may be told to show; it begins with `server`. Each command is answered with one line of JSON on standard output:
//
//   {"do": "login", "name": "ada", "groups": ["a"]}
//       an ID token, by the authorization code flow
//   {"do": "mint", "count": 9, "groups": ["a"], "file": "...", "random_kid": false}
//       ID tokens signed with the current key, one a line, into a file; with `random_kid` none of them names that key
//   {"do": "keys", "publish": ["k1", "k2"]}
//       publish exactly these keys, each made when it is first named; the first one signs
//   {"do": "fault", "on": "jwks", "kind": "garbage"}
//       answer for the key set, or for `discovery`, so (see faults.mjs); without `kind`, as usual again
//   {"do": "delay", "milliseconds": 300}
//       answer those two so much later
//   {"do": "certificate", "name": "expired"}
//       show another certificate to new connections
//   {"do": "stop"}, {"do": "start"}
//       stop and start listening
//   {"do": "counts"}
//       how often those two were asked for, and how many such requests there were at once at most

import { randomUUID } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { createInterface } from 'node:readline';
import { SignJWT, exportJWK, generateKeyPair } from 'jose';
import Provider from 'oidc-provider';
import { FAULTS } from './faults.mjs';
import { CLIENT, login } from './login.mjs';

// Standard output is for answers; the library's advice for production goes where its warnings go.
console.info = console.error;

const [port, directory] = process.argv.slice(2);
const issuer = `https://localhost:${port}`;
const file = (name) => readFileSync(`${directory}/${name}`);
const certificate = (name) => ({ cert: file(`${name}.pem`), key: file(`${name}.key`) });

const PATHS = { '/jwks': 'jwks', '/.well-known/openid-configuration': 'discovery' };
const made = new Map();
const groups = new Map();
const faults = {};
const counts = { jwks: 0, discovery: 0, at_once: 0 };
let running = 0;
let delay = 0;
let keys = [];
let provider;

// Keys whose name begins with `ec` are for ES256, all others for RS256.
async function key(name) {
  if (!made.has(name)) {
    const alg = name.startsWith('ec') ? 'ES256' : 'RS256';
    const { privateKey } = await generateKeyPair(alg, { extractable: true });
    made.set(name, { ...(await exportJWK(privateKey)), kid: name, use: 'sig', alg, privateKey });
  }
  return made.get(name);
}

// The library's keys are fixed when it is made: a rotation makes it anew.
async function publish(names) {
  keys = await Promise.all(names.map(key));
  provider = new Provider(issuer, {
    clients: [{ ...CLIENT, id_token_signed_response_alg: keys[0].alg }],
    jwks: { keys: keys.map(({ privateKey, ...jwk }) => jwk) },
    claims: { openid: ['sub'], groups: ['groups'] },
    conformIdTokenClaims: false,
    cookies: { keys: [randomUUID()] },
    findAccount: (ctx, id) => ({
      accountId: id,
      claims: () => ({ sub: id, groups: groups.get(id) ?? [] }),
    }),
  });
}

function publicKeys() {
  const names = ['kty', 'n', 'e', 'crv', 'x', 'y', 'kid', 'use', 'alg'];
  const published = (jwk) => Object.fromEntries(names.filter((name) => name in jwk).map((name) => [name, jwk[name]]));
  return JSON.stringify({ keys: keys.map(published) });
}

const GOOD = {
  jwks: publicKeys,
  discovery: () => JSON.stringify({ issuer, jwks_uri: `${issuer}/jwks` }),
};

async function handle(request, response) {
  const what = PATHS[request.url];
  if (!what) {
    provider.callback()(request, response);
    return;
  }
  counts[what] += 1;
  running += 1;
  counts.at_once = Math.max(counts.at_once, running);
  response.on('close', () => {
    running -= 1;
  });
  if (delay) await new Promise((resolve) => { setTimeout(resolve, delay); });
  if (faults[what]) {
    FAULTS[faults[what]](response, GOOD[what]);
  } else {
    provider.callback()(request, response);
  }
}

async function mint({ count, groups: of, file: to, random_kid: random }) {
  const [signing] = keys;
  const now = Math.floor(Date.now() / 1000);
  const tokens = [];
  for (let number = 0; number < count; number += 1) {
    tokens.push(await new SignJWT({ groups: of, jti: randomUUID() })
      .setProtectedHeader({ alg: signing.alg, kid: random ? randomUUID() : signing.kid, typ: 'JWT' })
      .setIssuer(issuer)
      .setAudience(CLIENT.client_id)
      .setSubject(`minted-${number}`)
      .setIssuedAt(now)
      .setExpirationTime(now + 3600)
      .sign(signing.privateKey));
  }
  writeFileSync(to, `${tokens.join('\n')}\n`);
  return { minted: count };
}

const server = createServer(certificate('server'), handle);

const listen = () => new Promise((resolve, reject) => {
  server.once('error', reject);
  server.listen(Number(port), '127.0.0.1', resolve);
});

const stop = () => new Promise((resolve) => {
  server.close(resolve);
  server.closeAllConnections();
});

const COMMANDS = {
  login: async ({ name, groups: of }) => {
    groups.set(name, of);
    return { token: await login(issuer, file('ca.pem'), name) };
  },
  mint,
  keys: async ({ publish: names }) => publish(names),
  fault: ({ on, kind }) => {
    if (kind && !FAULTS[kind]) throw new Error(`no fault ${kind}`);
    faults[on] = kind;
  },
  certificate: ({ name }) => server.setSecureContext(certificate(name)),
  stop,
  start: listen,
  counts: () => ({ ...counts }),
  delay: ({ milliseconds }) => {
    delay = milliseconds;
  },
};

const say = (answer) => process.stdout.write(`${JSON.stringify(answer ?? {})}\n`);

await publish(['k1']);
await listen();
say({ issuer });
for await (const line of createInterface({ input: process.stdin })) {
  try {
    const command = JSON.parse(line);
    say(await COMMANDS[command.do](command));
  } catch (error) {
    say({ error: String(error.stack ?? error) });
  }
}
// Whoever gave the commands has gone.
process.exit(0);
