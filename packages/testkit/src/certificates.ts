import { createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';
import { isIPv4 } from 'node:net';

/** A certificate and its private key, as PEM. */
export interface IssuedCertificate {
  readonly cert: string;
  readonly key: string;
}

/**
 * Issues X.509 certificates for tests, so that none with its key lies in the repository and none expires there. P-256, SHA-256; just enough of
 * RFC 5280 for Go and OpenSSL to take them.
 */
export class CertificateAuthority {
  /** Its own certificate, as PEM. */
  readonly pem: string;
  readonly #name: string;
  readonly #key: KeyObject;

  constructor(name: string) {
    this.#name = name;
    this.#key = newKey();
    this.pem = certificate({ issuer: name, issuerKey: this.#key, subject: name, key: this.#key, extensions: [certifies] });
  }

  /** @param hosts DNS names and IPv4 addresses it is good for; none: it is one of a client, which is known by its `name`. */
  issue(name: string, hosts: readonly string[] = []): IssuedCertificate {
    const key = newKey();
    const extensions = hosts.length === 0 ? [] : [alternativeNames(hosts)];
    const cert = certificate({ issuer: this.#name, issuerKey: this.#key, subject: name, key, extensions });
    return { cert, key: key.export({ type: 'pkcs8', format: 'pem' }).toString() };
  }
}

interface Contents {
  readonly issuer: string;
  readonly issuerKey: KeyObject;
  readonly subject: string;
  readonly key: KeyObject;
  readonly extensions: readonly Buffer[];
}

function newKey(): KeyObject {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
}

function certificate({ issuer, issuerKey, subject, key, extensions }: Contents): string {
  const algorithm = sequence(objectId('2a8648ce3d040302'));
  const body = sequence(
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, Buffer.concat([Buffer.from([1]), randomBytes(8)])),
    algorithm,
    distinguishedName(issuer),
    sequence(generalizedTime('20200101000000Z'), generalizedTime('21200101000000Z')),
    distinguishedName(subject),
    createPublicKey(key).export({ type: 'spki', format: 'der' }),
    ...(extensions.length === 0 ? [] : [der(0xa3, sequence(...extensions))]),
  );
  const signed = sequence(body, algorithm, bitString(sign('sha256', body, issuerKey)));
  // No empty line where the last one is full: OpenSSL refuses it.
  const lines = signed.toString('base64').match(/.{1,64}/g) ?? [];
  return ['-----BEGIN CERTIFICATE-----', ...lines, '-----END CERTIFICATE-----', ''].join('\n');
}

/** Basic constraints, critical: an authority. */
const certifies = sequence(objectId('551d13'), der(0x01, Buffer.from([0xff])), octets(sequence(der(0x01, Buffer.from([0xff])))));

function alternativeNames(hosts: readonly string[]): Buffer {
  const names = hosts.map((host) => (isIPv4(host) ? der(0x87, Buffer.from(host.split('.').map(Number))) : der(0x82, Buffer.from(host))));
  return sequence(objectId('551d11'), octets(sequence(...names)));
}

function distinguishedName(name: string): Buffer {
  return sequence(der(0x31, sequence(objectId('550403'), der(0x0c, Buffer.from(name)))));
}

function sequence(...parts: readonly Buffer[]): Buffer {
  return der(0x30, Buffer.concat(parts));
}

function objectId(hex: string): Buffer {
  return der(0x06, Buffer.from(hex, 'hex'));
}

function octets(contents: Buffer): Buffer {
  return der(0x04, contents);
}

function bitString(contents: Buffer): Buffer {
  return der(0x03, Buffer.concat([Buffer.from([0]), contents]));
}

function generalizedTime(text: string): Buffer {
  return der(0x18, Buffer.from(text));
}

function der(tag: number, contents: Buffer): Buffer {
  const { length } = contents;
  const size = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...size]), contents]);
}
