// A certified OpenID Connect provider on the loopback interface. Its clients get JWT access tokens for themselves.
// Usage: node provider.js AUDIENCE SCOPES. It prints the address of the issuer, and ends with its standard input.

import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";

import Provider from "oidc-provider";

const [audience, scopes] = process.argv.slice(2);

const privateKey = (alg, type, options) => ({
  ...generateKeyPairSync(type, options).privateKey.export({ format: "jwk" }),
  alg,
  kid: `key-${alg}`,
  use: "sig",
});

const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: ["RS256", "ES256", "EdDSA"].map((alg) => ({
      client_id: `client-${alg}`,
      client_secret: "secret",
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
    })),
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_context, resource, client) => ({
          audience: resource,
          accessTokenFormat: "jwt",
          accessTokenTTL: 300,
          scope: scopes,
          // Each client has the algorithm of its name.
          jwt: { sign: { alg: client.clientId.slice("client-".length) } },
        }),
        defaultResource: () => audience,
      },
    },
    jwks: {
      keys: [
        privateKey("RS256", "rsa", { modulusLength: 2048 }),
        privateKey("ES256", "ec", { namedCurve: "P-256" }),
        privateKey("EdDSA", "ed25519", {}),
      ],
    },
  });
  server.on("request", provider.callback());
  console.log(issuer);
});

process.stdin.on("end", () => process.exit()).resume();
