// Answers that no provider should give. Each writes to a response of Node.js.

const JSON_HEAD = { 'content-type': 'application/json' };

// Until the client leaves.
function forever(response, chunk, milliseconds) {
  const timer = setInterval(() => response.write(chunk), milliseconds);
  response.on('close', () => clearInterval(timer));
}

export const FAULTS = {
  garbage: (response) => response.writeHead(200, JSON_HEAD).end('\u0000<<< not a key set >>>'),
  status: (response) => response.writeHead(500, JSON_HEAD).end('{"keys": []}'),
  type: (response, good) => response.writeHead(200, { 'content-type': 'text/html' }).end(good()),
  empty: (response) => response.writeHead(200, JSON_HEAD).end('{"keys": []}'),
  redirect: (response) => response.writeHead(302, { location: 'https://other.test/jwks' }).end(),
  silence: () => {},
  drip: (response) => {
    response.writeHead(200, JSON_HEAD);
    forever(response, ' ', 200);
  },
  endless: (response) => {
    response.writeHead(200, JSON_HEAD);
    const chunk = Buffer.alloc(64 * 1024, ' ');
    const more = () => {
      while (response.write(chunk));
    };
    response.on('drain', more);
    more();
  },
  // Discovery alone.
  issuer: (response, good) => {
    const metadata = { ...JSON.parse(good()), issuer: 'https://other.test' };
    response.writeHead(200, JSON_HEAD).end(JSON.stringify(metadata));
  },
};
