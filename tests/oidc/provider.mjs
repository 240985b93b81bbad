// The OpenID Provider that the tests run against: oidc-provider, with its own login form. What follows a "+" in a
// login says how it went: "mfa" with two factors, "stale" an hour ago; and what the token says of it, signed with
// the provider's own key: "audience" that it is for another client, "issuer" that it is another provider's. Prints
// its issuer, and ends with its standard input.
import { createServer } from 'node:http';

import { SignJWT, decodeJwt, decodeProtectedHeader, exportJWK, generateKeyPair } from 'jose';
import Provider from 'oidc-provider';

const settings = JSON.parse(process.argv[2]);

const server = createServer();
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

const { privateKey } = await generateKeyPair('RS256', { extractable: true });
const key = { ...await exportJWK(privateKey), alg: 'RS256', use: 'sig', kid: 'own' };

const provider = new Provider(issuer, {
  jwks: { keys: [key] },
  clients: [{
    client_id: settings.client_id,
    client_secret: settings.client_secret,
    redirect_uris: settings.redirect_uris,
    backchannel_logout_uri: settings.backchannel_logout_uri,
    backchannel_logout_session_required: true,
  }],
  claims: { openid: ['sub', 'groups'], acr: null, amr: null, auth_time: null, sid: null },
  conformIdTokenClaims: false,
  cookies: { keys: ['for tests'] },
  features: {
    backchannelLogout: { enabled: true },
    claimsParameter: { enabled: true },
    devInteractions: { enabled: true },
  },
  // Its own refuses addresses of this machine.
  fetch: (url, { method, headers, body }) => fetch(url, { method, headers, body, redirect: 'manual' }),
  findAccount: (ctx, sub) => ({
    accountId: sub,
    claims: () => ({ sub, groups: settings.groups }),
  }),
});

// By account: what is wrong with the next tokens.
const wrong = new Map();
const finished = provider.interactionFinished.bind(provider);
provider.interactionFinished = (req, res, result, options) => {
  if (result.login) {
    const [account, ...how] = result.login.accountId.split('+');
    result.login.accountId = account;
    if (how.includes('mfa')) result.login.amr = ['pwd', 'otp', 'mfa'];
    if (how.includes('stale')) result.login.ts = Math.floor(Date.now() / 1000) - 3600;
    wrong.set(account, how.includes('audience') ? { aud: 'another' }
      : how.includes('issuer') ? { iss: `${issuer}/another` } : {});
  }
  return finished(req, res, result, options);
};
provider.use(async (ctx, next) => {
  await next();
  const token = ctx.body?.id_token;
  if (!token) return;
  const claims = decodeJwt(token);
  ctx.body.id_token = await new SignJWT({ ...claims, ...wrong.get(claims.sub) })
    .setProtectedHeader(decodeProtectedHeader(token))
    .sign(privateKey);
});
for (const event of ['backchannel.error', 'server_error', 'authorization.error', 'grant.error']) {
  provider.on(event, (...args) => {
    const error = args.find((arg) => arg instanceof Error);
    console.error(event, error?.message, error?.error_description ?? '', error?.cause ?? '');
  });
}

server.on('request', provider.callback());
console.log(issuer);
process.stdin.on('end', () => process.exit(0)).resume();
