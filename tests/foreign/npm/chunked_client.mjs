// SPDX-License-Identifier: Apache-2.0
// An OHTTP client on foreign HPKE (`hpke`) and Binary HTTP (`bhttp-js`) libraries; the chunk framing is written
// here from draft-ietf-ohai-chunked-ohttp. It shares no code with the project, and so is evidence that the
// gateway speaks the standard and not merely its own dialect.
//
// Usage: node chunked_client.mjs BASE_URL INNER_URL JSON_BODY
// Prints one JSON object: {status, contentType, body, chunks}.

import * as HPKE from "hpke";
import { BHttpDecoder, BHttpEncoder } from "bhttp-js";

const X25519 = 0x0020;
const HKDF_SHA256 = 0x0001;
const AES_128_GCM = 0x0001;
const text = new TextEncoder();

function concat(...parts) {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

// QUIC variable-length integer, RFC 9000 section 16.
function varint(value) {
  if (value < 64) return Uint8Array.of(value);
  if (value < 16384) return Uint8Array.of(0x40 | (value >> 8), value & 0xff);
  return Uint8Array.of(0x80 | (value >> 24), (value >> 16) & 0xff, (value >> 8) & 0xff, value & 0xff);
}

function readVarint(bytes, at) {
  const length = 1 << (bytes[at] >> 6);
  if (at + length > bytes.length) return null;
  let value = bytes[at] & 0x3f;
  for (let i = 1; i < length; i++) value = value * 256 + bytes[at + i];
  return { value, next: at + length };
}

// RFC 9458 section 3: every configuration stands behind its two-byte length.
function x25519Configuration(list) {
  const view = new DataView(list.buffer, list.byteOffset, list.byteLength);
  for (let at = 0; at < list.length; ) {
    const length = view.getUint16(at);
    const keyId = view.getUint8(at + 2);
    const kem = view.getUint16(at + 3);
    if (kem === X25519) return { keyId, publicKey: list.slice(at + 5, at + 5 + 32) };
    at += 2 + length;
  }
  throw new Error("the appliance offers no X25519 key");
}

async function hkdfExpand(prk, info, length) {
  const key = await crypto.subtle.importKey("raw", prk, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  const block = new Uint8Array(await crypto.subtle.sign("HMAC", key, concat(info, Uint8Array.of(1))));
  return block.slice(0, length);
}

async function hkdfExtract(salt, secret) {
  const key = await crypto.subtle.importKey("raw", salt, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", key, secret));
}

const [base, innerUrl, body] = process.argv.slice(2);
const gateway = `${base}/.well-known/ohttp-gateway`;
const keys = new Uint8Array(await (await fetch(gateway)).arrayBuffer());
const { keyId, publicKey } = x25519Configuration(keys);

const header = Uint8Array.of(keyId, X25519 >> 8, X25519 & 0xff, 0, HKDF_SHA256, 0, AES_128_GCM);
const info = concat(text.encode("message/bhttp chunked request"), Uint8Array.of(0), header);
const suite = new HPKE.CipherSuite(
  HPKE.KEM_DHKEM_X25519_HKDF_SHA256,
  HPKE.KDF_HKDF_SHA256,
  HPKE.AEAD_AES_128_GCM,
);
const { encapsulatedSecret: enc, ctx } = await suite.SetupSender(await suite.DeserializePublicKey(publicKey), {
  info,
});

const inner = await new BHttpEncoder().encodeRequest(
  new Request(innerUrl, { method: "POST", headers: { "Content-Type": "application/json" }, body }),
);
// Two data chunks on purpose, so that reassembly is exercised, then the empty final chunk.
const middle = inner.length >> 1;
const first = await ctx.Seal(inner.slice(0, middle));
const second = await ctx.Seal(inner.slice(middle));
const final = await ctx.Seal(new Uint8Array(0), text.encode("final"));
const message = concat(
  header, enc, varint(first.length), first, varint(second.length), second, varint(0), final,
);

const response = await fetch(gateway, {
  method: "POST",
  headers: { "Content-Type": "message/ohttp-chunked-req", Incremental: "?1" },
  body: message,
});
if (response.status !== 200 || response.headers.get("content-type") !== "message/ohttp-chunked-res") {
  throw new Error(`unexpected outer answer ${response.status}: ${await response.text()}`);
}
const sealed = new Uint8Array(await response.arrayBuffer());

const responseNonce = sealed.slice(0, 16);
const secret = await ctx.Export(text.encode("message/bhttp chunked response"), 16);
const prk = await hkdfExtract(concat(enc, responseNonce), secret);
const aeadKey = await crypto.subtle.importKey(
  "raw", await hkdfExpand(prk, text.encode("key"), 16), "AES-GCM", false, ["decrypt"],
);
const aeadNonce = await hkdfExpand(prk, text.encode("nonce"), 12);

async function open(counter, ciphertext, additionalData) {
  const iv = aeadNonce.slice();
  const view = new DataView(iv.buffer);
  view.setBigUint64(4, view.getBigUint64(4) ^ BigInt(counter));
  const algorithm = { name: "AES-GCM", iv, additionalData };
  return new Uint8Array(await crypto.subtle.decrypt(algorithm, aeadKey, ciphertext));
}

let at = 16;
let counter = 0;
let plaintext = new Uint8Array(0);
for (;;) {
  const length = readVarint(sealed, at);
  if (length === null) throw new Error("truncated before the final chunk");
  if (length.value === 0) {
    plaintext = concat(plaintext, await open(counter, sealed.slice(length.next), text.encode("final")));
    break;
  }
  const end = length.next + length.value;
  if (end > sealed.length) throw new Error("truncated inside a chunk");
  plaintext = concat(plaintext, await open(counter, sealed.slice(length.next, end), new Uint8Array(0)));
  at = end;
  counter += 1;
}
const answer = new BHttpDecoder().decodeResponse(plaintext);
console.log(
  JSON.stringify({
    status: answer.status,
    contentType: answer.headers.get("content-type"),
    body: await answer.text(),
    chunks: counter,
  }),
);
