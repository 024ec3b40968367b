// A browser, as far as a login needs one: the authorization code flow with PKCE (RFC 7636), followed step by step.

import { createHash, randomBytes } from 'node:crypto';
import { request } from 'node:https';

const REDIRECT = 'https://grafana.test/login/generic_oauth';
const MAX_STEPS = 20;

// The client that Grafana would be.
export const CLIENT = {
  client_id: 'grafana',
  redirect_uris: [REDIRECT],
  token_endpoint_auth_method: 'none',
};

// Logs `login` in at the issuer and returns the ID token that the provider issued.
export async function login(issuer, ca, name) {
  const browser = new Browser(ca);
  const verifier = randomBytes(32).toString('base64url');
  let answer = await browser.get(`${issuer}/auth?${new URLSearchParams({
    client_id: CLIENT.client_id,
    redirect_uri: REDIRECT,
    response_type: 'code',
    scope: 'openid groups',
    state: randomBytes(8).toString('hex'),
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
  })}`);
  for (let step = 0; step < MAX_STEPS; step += 1) {
    if (answer.location?.startsWith(REDIRECT)) {
      const code = new URL(answer.location).searchParams.get('code');
      if (!code) throw new Error(`no code in ${answer.location}`);
      const tokens = await browser.post(`${issuer}/token`, {
        grant_type: 'authorization_code',
        client_id: CLIENT.client_id,
        redirect_uri: REDIRECT,
        code,
        code_verifier: verifier,
      });
      if (tokens.status !== 200) throw new Error(`the token endpoint answers ${tokens.status}: ${tokens.body}`);
      return JSON.parse(tokens.body).id_token;
    }
    if (answer.location) {
      answer = await browser.get(answer.location);
    } else {
      const form = /<form[^>]* action="([^"]+)"[\s\S]*? name="prompt" value="(\w+)"/.exec(answer.body);
      if (!form) throw new Error(`status ${answer.status}, and no form: ${answer.body}`);
      const [, action, prompt] = form;
      answer = await browser.post(new URL(action, answer.url).href, { prompt, login: name, password: 'any' });
    }
  }
  throw new Error('the login never ends');
}

class Browser {
  #ca;

  #cookies = new Map();

  constructor(ca) {
    this.#ca = ca;
  }

  get(url) {
    return this.#send('GET', url);
  }

  post(url, fields) {
    return this.#send('POST', url, new URLSearchParams(fields).toString());
  }

  #send(method, url, body) {
    const cookie = [...this.#cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const headers = { ...(cookie && { cookie }) };
    if (body !== undefined) headers['content-type'] = 'application/x-www-form-urlencoded';
    return new Promise((resolve, reject) => {
      const sent = request(url, { method, headers, ca: this.#ca, agent: false }, (answer) => {
        for (const line of answer.headers['set-cookie'] ?? []) {
          const [name, value] = line.split(';')[0].split('=', 2);
          this.#cookies.set(name, value);
        }
        const chunks = [];
        answer.on('data', (chunk) => chunks.push(chunk));
        answer.on('error', reject);
        answer.on('end', () => {
          const { location } = answer.headers;
          resolve({
            url,
            status: answer.statusCode,
            location: location && new URL(location, url).href,
            body: Buffer.concat(chunks).toString(),
          });
        });
      });
      sent.on('error', reject);
      sent.end(body);
    });
  }
}
