// The same work as floor.py by well-known packages of npm: fastify, viem, ioredis, http-message-signatures, undici.
// It does not verify the signature that it made: viem's recovery costs more than all the rest.
// The only argument is the settings file of benchmarks/programs/common.py.

import { createHash, createPrivateKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import Fastify from 'fastify';
import { createSigner, httpbis } from 'http-message-signatures';
import Redis from 'ioredis';
import { Pool } from 'undici';
import { privateKeyToAccount } from 'viem/accounts';
import { parseSiweMessage } from 'viem/siwe';

const settings = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const redis = new Redis({ path: settings.redis });
const account = privateKeyToAccount(`0x${settings.private_key}`);
const cardApi = new Pool(settings.card_api, { connections: 64 });
const key = createSigner(createPrivateKey(readFileSync(settings.request_key)), 'ecdsa-p384-sha384', settings.key_id);
const fields = [
  '@method', '@authority', '@path', 'content-type', 'content-digest', 'authorization', 'idempotency-key',
];
const app = Fastify();

function uuid(text) {
  const hex = createHash('sha1').update(text).digest('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-5${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

app.post('/v1/customers/:customer/challenge/sign', async (request, reply) => {
  const { ownerId, challenge } = request.body;
  const message = Buffer.from(challenge, 'base64').toString('ascii');
  const siwe = parseSiweMessage(message);
  if (siwe.domain !== settings.domain) return reply.code(422).send({ error: 'refused' });
  const record = `node:${siwe.nonce}`;
  const claimed = await redis.set(record, message, 'PX', 2592000000, 'NX');
  if (claimed === null) return reply.code(409).send({ error: 'nonce reused' });
  const signed = await account.signMessage({ message });
  const signature = Buffer.from(signed).toString('base64');
  const body = JSON.stringify({ ownerId, challenge, signature });
  const path = `/v1/customers/${request.params.customer}/challenge/sign`;
  const outgoing = await httpbis.signMessage(
    { key, fields, name: 'sig1', params: ['created', 'keyid', 'alg'] },
    {
      method: 'POST',
      url: settings.card_api + path,
      headers: {
        Authorization: `Bearer ${'x'.repeat(300)}`,
        'Content-Type': 'application/json',
        'Content-Digest': `sha-256=:${createHash('sha256').update(body).digest('base64')}:`,
        'Idempotency-Key': uuid(signature),
      },
    },
  );
  const response = await cardApi.request({ method: 'POST', path, headers: outgoing.headers, body });
  await response.body.dump();
  if (response.statusCode !== 204) return reply.code(502).send({ error: 'not delivered' });
  await redis.set(record, signature, 'PX', 2592000000);
  return { state: 'verified', signature };
});

await app.listen({ host: '127.0.0.1', port: settings.port });
