import { createSecureContext } from 'node:tls';
import { expect, test } from 'vitest';
import { CertificateAuthority } from './certificates.ts';

test('certificates are taken whatever their length is', () => {
  for (let length = 1; length <= 64; length++) {
    const authority = new CertificateAuthority('authority');
    const { cert, key } = authority.issue('x'.repeat(length), ['127.0.0.1', 'localhost']);
    expect(() => createSecureContext({ cert, key, ca: authority.pem })).not.toThrow();
  }
});
