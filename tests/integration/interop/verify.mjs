// Verifies requests that the signer signed, with the npm package http-message-signatures and without code of the signer.
//
// Reads JSON lines {"id", "method", "url", "headers", "body": base64 | null, "publicKey": PEM, "keyid", "covered"},
// writes one JSON line {"id", "verdict": "verified" | "refused" | "error", "reason"} for each, in the same order.
// "refused" is a verdict of the package or of the digest check; "error" is an unexpected exception.

import { createHash } from 'node:crypto';
import { createInterface } from 'node:readline';
import { createVerifier, httpbis, VerificationError } from 'http-message-signatures';

const ALGORITHM = 'ecdsa-p384-sha384';

// The package verifies headers only. The caller checks the digest (RFC 9530).
function digestMatches(headers, body) {
  const value = Object.entries(headers).find(([name]) => name.toLowerCase() === 'content-digest')?.[1];
  if (body === null) return value === undefined;
  const algorithm = value?.match(/^sha-(256|512)=:/)?.[1];
  if (algorithm === undefined) return false;
  return value === `sha-${algorithm}=:${createHash(`sha${algorithm}`).update(body).digest('base64')}:`;
}

async function verify({ method, url, headers, body, publicKey, keyid, covered }) {
  const key = { id: keyid, algs: [ALGORITHM], verify: createVerifier(publicKey, ALGORITHM) };
  try {
    const verified = await httpbis.verifyMessage(
      {
        keyLookup: async (parameters) => (parameters.keyid === keyid ? key : null),
        all: true,
        requiredParams: ['created', 'keyid', 'alg'],
        requiredFields: covered,
      },
      { method, url, headers },
    );
    if (verified === null) return ['refused', 'not signed'];
    if (!verified) return ['refused', 'signature does not verify'];
  } catch (error) {
    if (error instanceof VerificationError) return ['refused', error.message];
    return ['error', String(error)];
  }
  return digestMatches(headers, body === null ? null : Buffer.from(body, 'base64'))
    ? ['verified', '']
    : ['refused', 'digest does not match the body'];
}

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  const [verdict, reason] = await verify(request);
  process.stdout.write(`${JSON.stringify({ id: request.id, verdict, reason })}\n`);
}
