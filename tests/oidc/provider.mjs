// The OpenID Provider that the tests run against: oidc-provider, with its own login form. A login that ends in
// "+mfa" stands for one with two factors. Prints its issuer, and ends with its standard input.
import { createServer } from 'node:http';

import Provider from 'oidc-provider';

const settings = JSON.parse(process.argv[2]);

const server = createServer();
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
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

const finished = provider.interactionFinished.bind(provider);
provider.interactionFinished = (req, res, result, options) => {
  if (result.login?.accountId.endsWith('+mfa')) {
    result.login.accountId = result.login.accountId.slice(0, -'+mfa'.length);
    result.login.amr = ['pwd', 'otp', 'mfa'];
  }
  return finished(req, res, result, options);
};
for (const event of ['backchannel.error', 'server_error', 'authorization.error', 'grant.error']) {
  provider.on(event, (...args) => {
    const error = args.find((arg) => arg instanceof Error);
    console.error(event, error?.message, error?.error_description ?? '', error?.cause ?? '');
  });
}

server.on('request', provider.callback());
console.log(issuer);
process.stdin.on('end', () => process.exit(0)).resume();
